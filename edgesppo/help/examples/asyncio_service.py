"""A chat service for many clients over one model, with asyncio: one TCP connection, one chat.

    python asyncio_service.py sppo-iter3 7000
    nc 127.0.0.1 7000            # each line is a message; the answer comes as it is computed

The model computes in worker threads, several answers together, and the event loop stays free. A
client that hangs up stops its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import edgesppo

AT_ONCE = 4  # answers that are computed together; the others wait for their turn


async def talk(
    model: edgesppo.LoadedModel,
    turn: asyncio.Semaphore,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Answer a client's lines until it hangs up."""
    chat = model.chat(max_tokens=500)
    try:
        with contextlib.suppress(ConnectionError, ValueError):  # gone, or a line of over 64 KiB
            while line := await reader.readline():
                await answer(chat, turn, line, writer)
    finally:
        writer.close()


async def answer(
    chat: edgesppo.Chat, turn: asyncio.Semaphore, line: bytes, writer: asyncio.StreamWriter
) -> None:
    """Send the answer to one line as it is computed, or what is wrong with the line."""
    try:
        async with turn, contextlib.aclosing(chat.astream(line.decode())) as chunks:
            async for chunk in chunks:
                writer.write(chunk.text.encode())
                await writer.drain()  # raises when the client is gone: the answer stops
    except (edgesppo.EdgesppoError, UnicodeDecodeError) as error:
        writer.write(f"error: {error}".encode())
    writer.write(b"\n")
    await writer.drain()


async def serve(model: edgesppo.LoadedModel, port: int) -> asyncio.Server:
    """Listen on this machine; port 0 takes any that is free."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(model, turn, reader, writer)

    return await asyncio.start_server(connected, "127.0.0.1", port)


async def main(name: str, port: int) -> None:
    """Load the model and serve until Ctrl-C."""
    with edgesppo.load(name, n_seqs=AT_ONCE) as model:
        server = await serve(model, port)
        print(f"{model.name} listens on port {server.sockets[0].getsockname()[1]}")
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 7000
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(name, port))
