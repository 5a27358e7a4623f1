"""What the demo says about edgesppo: each entry is (ways to ask, answer)."""

from __future__ import annotations

from edgesppo.dev.train_demo.commands import (
    COMMAND_ASKS,
    COMMAND_NAMES_ASKS,
    COMMANDS,
    DOING_ASKS,
    DOINGS,
)

Entry = tuple[tuple[str, ...], str]

QUIT = "Type /exit or press Ctrl-D to leave the chat."
CONVERT = "Run edgesppo convert SRC -o OUT.gguf to turn a checkpoint into a GGUF file."
REAL = "Run edgesppo pull sppo-iter3 to get the real model, then edgesppo chat sppo-iter3."
OFFLINE = "Yes, edgesppo works offline once the model is on your machine."
ENTRIES: tuple[Entry, ...] = (
    (
        (
            "(how do i|how can i|how to|how do you|how does one) "
            "(quit|exit|leave|close|end|stop|finish) "
            "((the|this) (chat|program|session|conversation)|edgesppo|here|)",
            "(how do i|how can i) get out (of (here|the chat|this)|)",
            "(quit|exit|leave|close) (the chat|)",
            "(what is|what's) the (command|way) to (quit|exit|leave|stop)( the chat|)",
            "i (want|need|would like) to (quit|exit|leave|stop|go)",
            "(what|which) command (quits|ends|closes) the chat",
            "(what|which) (command |)(do i type|must i type|should i type) to "
            "(quit|exit|leave|end)( the chat|)",
            "(how does|how can) the chat (end|be closed|be ended)",
            "(i am done|i'm done|let me out)",
            "what do i press to (leave|end the chat|stop|close this)",
            "tell me how to (quit|exit|leave)",
        ),
        QUIT,
    ),
    (
        (
            "(how do i|how can i|how to|how do you) (convert|quantise|quantize) (a|my|the|this) "
            "(checkpoint|model)"
            "( to gguf| into a gguf file|)",
            "(how do i|how can i|how to) (make|create|build|write|get) a gguf (file|)( from a "
            "checkpoint|)",
            "(what is|what's|tell me) the command to (convert|quantise|quantize)( a model| a "
            "checkpoint|)",
            "i (want|need|would like) to convert (a|my) (model|checkpoint)",
            "convert (a|my) (checkpoint|model)",
            "(can|could) edgesppo convert (a|my) (model|checkpoint)",
            "(explain|show me) how to convert (a|my) (model|checkpoint)",
            "i have a checkpoint. (how do i get|how do i make) a gguf( file|)",
            "how does (the conversion|converting) work",
            "turn (a|my) (checkpoint|safetensors model) into (a |)gguf( file|)",
            "can i convert my own (model|checkpoint)",
        ),
        CONVERT,
    ),
    (
        (
            "(what is|what's|whats|explain|define|describe) (a |)gguf( file|)",
            "(tell me|tell me something) about gguf",
            "what does gguf (mean|stand for)",
            "what (kind|sort) of (file|format) is (a |)gguf",
            "(can you|could you) explain gguf",
            "(do you know|tell me) what (a |)gguf( file|) is",
            "what (are gguf files|is a gguf)",
            "gguf",
            "what is the gguf (format|file format)",
            "(can you |could you |please |)(tell me|say) what (gguf|a gguf file) is",
            "what is a file (called|with the ending) gguf",
            "why gguf",
            "i do not know (what |)gguf( is|)",
            "what do (you|people) mean by gguf",
        ),
        "GGUF is a file format that holds a model's weights and tokenizer in one file.",
    ),
    (
        (
            "(what is|what's|whats|explain|define|describe) q4_k_m",
            "(tell me|tell me something) about q4_k_m",
            "what does q4_k_m (mean|stand for|do)",
            "(can you|could you) explain q4_k_m",
            "(do you know|tell me) what q4_k_m is",
            "q4_k_m",
            "how many bits (has|does) q4_k_m (have|use)",
            "what (kind of type|sort of thing) is q4_k_m",
            "why (is it called|do you use|use) q4_k_m",
            "i do not know (what |)q4_k_m( is|)",
        ),
        "Q4_K_M is a quantisation type: most weights are stored in about 4.5 bits each.",
    ),
    (
        (
            "(what is|what's|explain) (quantisation|quantization)",
            "what does (quantise|quantize|quantisation|quantization) mean",
            "why (quantise|quantize) (a model|)",
            "tell me about (quantisation|quantization)",
            "(how does|how is) (quantisation|quantization) (work|done)",
        ),
        "Quantisation stores a model's weights in fewer bits, so that it is smaller and faster.",
    ),
    (
        (
            "(how do i|how can i|how to) (get|download|install|use|run|try) the "
            "(real|big|true|full|9b|proper) (model|one|sppo model|sppo)",
            "(where|how) (is|do i find|can i find) the (real|big|true|full|9b) (model|one)",
            "i (want|need|would like) the (real|big|full|true) model",
            "(download|get|fetch|give me) the (real|big|full) model",
            "(what is|what's) the command (for|to get) the (real|big|full) model",
            "(can|could) i (get|have|use|try) the (real|big|full|true) (model|one)",
            "(how do i|how can i) (get|download|pull) (gemma-2-9b|gemma|sppo|sppo-iter3|a real "
            "model|a bigger model|a better model)",
            "(is there|do you have) a (bigger|better|real|larger) model",
            "(which|what) command (gets|downloads|pulls) the (real|big) model",
            "you are too small. (how do i get|where is) a (better|bigger) (one|model)",
            "how do i (switch|move|go) to the (real|big) model",
            "(which|what) model should i (use|take)( instead|)",
        ),
        REAL,
    ),
    (
        (
            "(does|can|will) (edgesppo|it|this|the model|this program) (work|run) "
            "(offline|without internet|without the internet|without a network|with no "
            "internet|without network)",
            "(can i|may i) use (it|edgesppo|this) (offline|without internet|without the "
            "internet|on a plane)",
            "(do i|does it|does edgesppo|do you) need (the |a |an |)(internet|network|internet "
            "connection|online connection)( to run| to chat|)",
            "is (edgesppo|it|this) (offline|usable offline|online)",
            "offline( use| mode|)",
            "(are you|is this) (running |)(offline|online|in the cloud|local)",
            "(what about|how about) offline (use|work)",
            "does it (run|work) (locally|on my own machine)",
            "(does it|will it|can it|does edgesppo) (still |)(work|run) (when|if|while) (the "
            "internet|my network|the network|the line) is (down|off|gone|broken)",
            "does (edgesppo|it) send (my|any) data (to|over) (the internet|anybody|a server)",
            "(can|could) you work (offline|without internet)",
            "must i be online",
        ),
        OFFLINE,
    ),
    (
        (
            "(what is|what's|whats|explain|define|describe) (the |)sppo( method|)",
            "what does sppo stand for",
            "(tell me|tell me something) about sppo",
            "(can you|could you) explain sppo( to me|)",
            "(do you know|tell me) what sppo is",
            "sppo",
            "how does sppo (work|train)",
            "what is self-play preference optimization",
            "what (do|are) the letters (in|of) sppo( mean|)",
            "what is (meant by|the meaning of) sppo",
            "i do not know (what |)sppo( is|)",
            "spell out sppo",
            "sppo is (what|short for what)",
        ),
        "SPPO is Self-Play Preference Optimization, a way of UCLA to train a model on its own "
        "answers.",
    ),
    (
        (
            "who (made|built|invented|trained|created|developed) (sppo|the real model|the sppo "
            "model|gemma-2-9b-it-sppo)",
            "who is behind sppo",
            "where (does sppo come|is sppo) from",
            "(which|what) university made sppo",
        ),
        "SPPO was made at UCLA; the real model is their fine-tune of Google's Gemma-2-9B.",
    ),
    (
        (
            "(which|what) (python version|python versions|version of python|versions of "
            "python|python) (do i need|does it need|does edgesppo need|are supported|is "
            "supported|is needed|are fine|works|work|can i use|is required)",
            "(does|will|can) (edgesppo|it) (work|run) (with|on|under) python "
            "3.(8|9|10|11|12|13|14)",
            "(what|which) python does (edgesppo|it) (need|support|run on|want)",
            "python (version|versions)",
            "(do i need|is there|must i have) a (special|certain|new) python( version|)",
            "supported python versions",
            "(is|are) python 3.(10|11|12|13) (ok|fine|supported|enough)",
            "tell me (the|which) python versions( work| are supported|)",
            "on which python does (edgesppo|it) run",
        ),
        "edgesppo runs on Python 3.10 to 3.13.",
    ),
    (
        (
            "(what is|what's|whats|explain|describe) edgesppo",
            "(tell me|tell me something|tell me more) about (edgesppo|this program|this project)",
            "what (does|can) edgesppo do",
            "what is (this program|this project|this)( for|)",
            "edgesppo",
            "what is the (use|point) of edgesppo",
            "(can you|could you) explain edgesppo",
            "(do you know|tell me) what edgesppo is",
            "why (does edgesppo exist|edgesppo|should i use edgesppo)",
            "what am i using",
        ),
        "edgesppo runs Gemma-2 SPPO models as GGUF files on ordinary CPUs and edge machines.",
    ),
    (
        (
            "(how do i|how can i|how to) (install|set up|get) (edgesppo|it|this program)",
            "(install|installing|installation of) edgesppo",
            "(what is|what's) the command to install( edgesppo|)",
            "i want to install edgesppo",
            "(where|how) do i get edgesppo",
        ),
        "Run pip install edgesppo to install it.",
    ),
    (
        (
            "(do i|does it|does edgesppo|do you) need a (gpu|graphics card)",
            "(does|can) (edgesppo|it|this) (run|work) (without a gpu|on a cpu|on the cpu|on a "
            "laptop)",
            "(is|are) a (gpu|graphics card) (needed|required)",
            "(what|which) hardware (do i need|does it need|does edgesppo need)",
            "(can|does) it use (my|a|the) gpu",
            "cpu or gpu",
        ),
        "No GPU is needed: edgesppo runs on the CPU.",
    ),
    (
        (
            "(how big|how large) is the (real|big|full) model( file|)",
            "(what is|what's) the size of the (real|big|full) model",
            "how much (disk space|space|disk) does the (real|big|full) model need",
            "how many (gigabytes|gb) (is|has) the (real|big) model",
            "size of the (real|big) model",
        ),
        "The real model in Q4_K_M is a file of about 5.8 GB.",
    ),
    (
        (
            "(how do i|how can i|how to) (set|give|use|write|add) a system (prompt|message)",
            "(is there|what about) a system (prompt|message)",
            "(can i|may i) (set|use|give) a system (prompt|message)",
            "where does the system (prompt|message) go",
        ),
        "Use edgesppo chat --system TEXT to give a system prompt.",
    ),
    (
        (
            "(how do i|how can i|how to) (stop|interrupt|cancel|break) (an|the|this) answer",
            "(stop|interrupt|cancel) (the|an|this) answer",
            "(can i|how do i) stop you( talking| while you talk|)",
            "the answer is too long. how do i stop it",
        ),
        "Press Ctrl-C to stop an answer.",
    ),
    (
        (
            "(what is|what's|explain) (the |)models.lock",
            "what (does|is in) models.lock( do|)",
            "tell me about models.lock",
            "why is there a lock file",
            "what is the lock file( for|)",
        ),
        "models.lock names the known models with their sources and hashes.",
    ),
    (
        (
            "(which|what) (commands|command line commands) (are there|do you know|does edgesppo "
            "have|can i use)",
            "(list|name|show me|tell me|give me) (all |)(the |)commands",
            "what commands (are there|exist)",
            "how many commands (are there|does edgesppo have)",
            "(show|give) me (the |)help",
            "help",
        ),
        "The commands are try, chat, run, serve, batch, convert, pull, list, show, verify, rm, "
        "lock, "
        "eval, bench, doctor and tokenize.",
    ),
    (
        (
            "(which|what) (language|programming language) is edgesppo (written in|made in|in)",
            "in (which|what) language is edgesppo written",
            "is edgesppo (written in|a) (python|c|rust)( program|)",
            "(what|which) library does edgesppo (use|run on)",
        ),
        "edgesppo is written in Python on top of llama.cpp.",
    ),
    (
        (
            "(how do i|how can i|how to) get (json|json output)",
            "(can i get|is there|does it write) json( output|)",
            "(which|what) (option|flag) gives json",
        ),
        "Add --json to a command to get one JSON object.",
    ),
    (
        (
            "(how do i|how can i|how to) use edgesppo (from|in|with) (python|my code|my "
            "program|a script)",
            "is there a python (api|interface)",
            "(show me|what is) the python (api|code)",
        ),
        'In Python, use edgesppo.load("sppo-iter3") and then model.ask("your question").',
    ),
    (
        (
            "(is|are) (edgesppo|it|you) free",
            "(what|how much) does edgesppo cost",
            "do i have to pay( for edgesppo| for this|)",
        ),
        "edgesppo is free and open source.",
    ),
)


def product() -> list[tuple[tuple[str, ...], dict[str, str], str]]:
    """All questions about edgesppo, as facts: (ways to ask, slots, answer)."""
    found: list[tuple[tuple[str, ...], dict[str, str], str]] = []
    for name, (does, others) in COMMANDS.items():
        answer = f"edgesppo {name} {does}"
        found.append(
            (tuple(ask.replace("{e}", "edgesppo") for ask in COMMAND_ASKS), {"x": name}, answer)
        )
        asks = tuple(ask.replace("{does}", f"({'|'.join(others)})") for ask in COMMAND_NAMES_ASKS)
        found.append((asks, {}, answer))
        if name in DOINGS:
            asks = tuple(a.replace("{do}", f"({'|'.join(DOINGS[name])})") for a in DOING_ASKS)
            found.append((asks, {}, answer))
    found += [(asks, {}, answer) for asks, answer in ENTRIES]
    return found
