"""Ask the window of the examples one question and close it; prints what was seen, as JSON.

    python -m tests.help.window_session EXAMPLES QUESTION

Without a question (""), the window is closed while its model loads.
"""

from __future__ import annotations

import importlib
import json
import sys
import tkinter as tk


def main(examples: str, question: str) -> None:
    """Every millisecond, note the status; ask when the model is ready, close after the answer."""
    sys.path.insert(0, examples)
    root = tk.Tk()
    window = importlib.import_module("tk_window").ChatWindow(root, "demo")
    ticks: list[str] = []
    log = ""

    def tick() -> None:
        nonlocal log
        ticks.append(window.status["text"])
        if question and ticks[-1].endswith("is ready"):
            window.entry.insert(0, question)
            window.send()
        if not question or ticks[-1].endswith("tokens/s"):
            log = window.log.get("1.0", "end")
            window.close()
        else:
            root.after(1, tick)

    tick()
    root.mainloop()
    print(json.dumps({"ticks": ticks, "log": log, "worker is alive": window.worker.is_alive()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
