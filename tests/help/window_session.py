"""Ask the window of the examples one question and close it; prints what was seen, as JSON.

    python -m tests.help.window_session EXAMPLES QUESTION

Without a question (""), the window is closed while its model loads; the state is what it has then.
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
    log = state = ""

    def tick() -> None:
        nonlocal log, state
        ticks.append(window.status["text"])
        if question and ticks[-1].endswith("is ready"):
            window.entry.insert(0, question)
            window.send()
        if not question or ticks[-1].endswith("tokens/s"):
            log = window.log.get("1.0", "end")
            window.close()
            state = str(root.state()) if not question else ""
        else:
            root.after(1, tick)

    tick()
    root.mainloop()
    alive = window.worker.is_alive()
    print(json.dumps({"ticks": ticks, "log": log, "state": state, "worker is alive": alive}))


if __name__ == "__main__":
    main(*sys.argv[1:])
