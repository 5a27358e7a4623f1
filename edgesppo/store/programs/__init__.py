"""The models that other programs have on this machine, to be imported where they lie.

One file a program: where its folders are, and what it calls the models in them. All of it is
untrusted, and only looked at: nothing is written, moved or linked.
"""
