"""A window that streams answers and never freezes, with tkinter.

    python tk_window.py sppo-iter3

Tk's calls belong to one thread, and an answer takes seconds. So a second thread loads the model
and generates, and puts what comes into a queue, which the window empties every few milliseconds.
"""

from __future__ import annotations

import queue
import sys
import threading
import tkinter as tk
from tkinter.scrolledtext import ScrolledText

import edgesppo

EVERY_MS = 30


class ChatWindow:
    """One chat in one window."""

    def __init__(self, root: tk.Tk, model: str) -> None:
        self.root = root
        self.root.title(f"Chat with {model}")
        self.log = ScrolledText(root, wrap="word", state="disabled", height=20, width=72)
        self.log.pack(fill="both", expand=True, padx=8, pady=8)
        below = tk.Frame(root)
        below.pack(fill="x", padx=8, pady=(0, 8))
        self.entry = tk.Entry(below)
        self.entry.pack(side="left", fill="x", expand=True)
        self.entry.bind("<Return>", lambda _: self.send())
        self.button = tk.Button(below, text="Stop", state="disabled", command=self.stop)
        self.button.pack(side="right", padx=(8, 0))
        self.status = tk.Label(root, text="Loading ...", anchor="w")
        self.status.pack(fill="x", padx=8, pady=(0, 8))
        self.questions: queue.Queue[str | None] = queue.Queue()
        self.events: queue.Queue[tuple[str, str]] = queue.Queue()
        self.chat: edgesppo.Chat | None = None
        self.worker = threading.Thread(target=self.work, args=(model,))
        self.worker.start()
        root.protocol("WM_DELETE_WINDOW", self.close)
        root.after(EVERY_MS, self.poll)

    def work(self, model: str) -> None:
        """In the second thread: load the model, and answer until the window closes."""
        try:
            with edgesppo.load(model) as loaded:
                self.chat = loaded.chat()
                self.events.put(("status", f"{loaded.name} is ready"))
                while (question := self.questions.get()) is not None:
                    self.answer(self.chat, question)
        except edgesppo.EdgesppoError as error:
            self.events.put(("status", f"{error}"))

    def answer(self, chat: edgesppo.Chat, question: str) -> None:
        """In the second thread: one answer, chunk by chunk."""
        try:
            for chunk in chat.stream(question):
                self.events.put(("text", chunk.text))
            tps = chat.last.timings.decode_tps
            self.events.put(("done", f"{tps:.1f} tokens/s" if tps else "ready"))
        except edgesppo.EdgesppoError as error:
            self.events.put(("done", f"{error}"))

    def send(self) -> None:
        """Ask what was typed, if the second thread is there to answer."""
        question = self.entry.get().strip()
        if question and self.button["state"] == "disabled" and self.worker.is_alive():
            self.entry.delete(0, "end")
            self.write(f"> {question}\n")
            self.button["state"] = "normal"
            self.status["text"] = "..."
            self.questions.put(question)

    def stop(self) -> None:
        """End the answer; the text so far stays."""
        if self.chat is not None:
            self.chat.cancel()

    def poll(self) -> None:
        """Show what has come since the last time."""
        while not self.events.empty():
            kind, text = self.events.get()
            if kind == "text":
                self.write(text)
            else:
                self.status["text"] = text
            if kind == "done":
                self.write("\n\n")
                self.button["state"] = "disabled"
        self.root.after(EVERY_MS, self.poll)

    def write(self, text: str) -> None:
        """Add text at the end."""
        self.log["state"] = "normal"
        self.log.insert("end", text)
        self.log.see("end")
        self.log["state"] = "disabled"

    def close(self) -> None:
        """Hide the window, and end when the second thread has."""
        self.root.withdraw()
        self.questions.put(None)
        self.end()

    def end(self) -> None:
        """Stop the answer; look again until the second thread has ended."""
        if self.worker.is_alive():
            self.stop()
            self.root.after(EVERY_MS, self.end)
        else:
            self.root.destroy()


if __name__ == "__main__":
    window = tk.Tk()
    ChatWindow(window, sys.argv[1] if len(sys.argv) > 1 else "demo")
    window.mainloop()
