"""The commands of the manual that are not run, by what they need, and those that take long.

They need a GPU, the Hugging Face hub, a package index, another machine or system; or they change
the shell, or go on until they are stopped.
"""

NOT_RUN: dict[str, list[str]] = {
    "gpu": ["edgesppo build --backend cuda", "edgesppo build --backend vulkan"],
    "hub": [
        "edgesppo pull sppo-iter3 --convert",
        ".venv/bin/edgesppo pull sppo-iter3 --convert",
        "edgesppo pull gemma-2-2b-it --convert",
        "edgesppo convert UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3@COMMIT -o sppo.gguf",
        "edgesppo pull sppo-iter3 --convert --adapter my-lora",
        "edgesppo lock sppo-iter3",
    ],
    "index": [
        "make try",
        "make test",
        "make check",
        '.venv/bin/pip install ".[ray]"',
        '.venv/bin/pip install ".[ray,server]" "ray[serve]"',
        ".venv/bin/pip install .",
        ".venv/bin/edgesppo build",
        '.venv/bin/pip install ".[test]"',
        'pip wheel ".[server]" --wheel-dir wheels',
        '.venv/bin/pip install ".[server]"',
        "make bundle ARCHIVE=1",
        "git clone ADDRESS edgesppo",
    ],
    "machine": [
        ".venv/bin/ray start --head --port 6379",
        ".venv/bin/ray start --address pi1:6379",
        ".venv/bin/edgesppo batch sppo-iter3 in.jsonl out.jsonl --ray pi1:6379",
        ".venv/bin/ray stop",
        "export EDGESPPO_API_KEY=ada:a-long-secret",
        ".venv/bin/serve run edgesppo.server.ray_serve:app model=sppo-iter3 machines=3",
        "sudo apt install python3-venv make git",
        'pip install --no-index --find-links wheels "edgesppo[server]"',
    ],
    "stays": [
        "cd edgesppo",
        "source .venv/bin/activate",
        ".venv/bin/python -m pytest",
        "echo 'eval \"$(_EDGESPPO_COMPLETE=bash_source edgesppo)\"' >> ~/.bashrc",
        "echo 'eval \"$(_EDGESPPO_COMPLETE=zsh_source edgesppo)\"' >> ~/.zshrc",
        "_EDGESPPO_COMPLETE=fish_source edgesppo > ~/.config/fish/completions/edgesppo.fish",
    ],
}
# Run with EDGESPPO_LONG=1.
COSTLY = {
    "python3 -m venv .venv",
    "edgesppo convert Gemma-2-9B-It-SPPO-Iter3 -o sppo.gguf --calibrate",
    "edgesppo convert Gemma-2-9B-It-SPPO-Iter3 -o chosen.gguf --calibrate --target-size 5.76GB",
}
