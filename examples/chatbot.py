"""A console chatbot that speaks its answers: a dozen rules for a shop's hotline, in Chinese and English.

    voxbus up                      # in another terminal
    python examples/chatbot.py
    printf '你好\nwhere is my order?\n' | python examples/chatbot.py --no-play

Every answer goes through `SpeechClient`: published to Kafka, spoken, stored, and fetched. Ask the same twice and
the second answer comes from the store. Needs voxbus[producers] and a running stack; --endpoints or VOXBUS_KAFKA__…
say where.
"""

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from infra.errors import UserError
from producers import SpeechClient, SpeechFailedError, SpeechTimeoutError, download
from producers.connection import client_settings
from producers.lines import line_batches

# Pattern → answer; the first that matches speaks.
RULES = [
    (r"再见|拜拜", "感谢您的来电，再见！"),
    (r"\b(bye|goodbye)\b", "Thank you for calling. Goodbye!"),
    (r"退款|退货", "退款申请已受理，款项将在三到五个工作日内原路退回。"),
    (r"\brefund|\breturn", "Your refund has been approved; it takes three to five working days."),
    (r"订单|快递|发货|物流", "您的订单已经发货，预计明天送达。"),
    (r"\border|\bparcel|\bdelivery", "Your order is on its way and should arrive tomorrow."),
    (r"人工|客服", "请稍等，正在为您转接人工客服。"),
    (r"\bhuman|\bagent|\bperson", "Please hold the line while I connect you to a colleague."),
    (r"你好|您好|喂", "您好，这里是云帆商城，请问有什么可以帮您？"),
    (r"\b(hello|hi|hey)\b", "Hello, this is Cloudsail. How can I help you?"),
    (r"[\u4e00-\u9fff]", "抱歉，我没有听懂。您可以问订单、退款，或者说人工客服。"),
    (r"", "Sorry, I did not get that. Ask about an order or a refund, or say agent."),
]
GOODBYE = re.compile(r"再见|拜拜|\b(bye|goodbye|quit|exit)\b", re.IGNORECASE)
PLAYERS = {"ffplay": ["-nodisp", "-autoexit", "-loglevel", "quiet"], "aplay": ["-q"], "afplay": []}


def answer(question: str) -> str:
    """What the bot says."""
    return next(reply for pattern, reply in RULES if re.search(pattern, question, re.IGNORECASE))


async def speak(speech: SpeechClient, text: str, voice: str, target: Path) -> str:
    """Have a text spoken into a file; says how that went."""
    started = time.monotonic()
    completion = await speech.synthesize(text, voice=voice, format="wav", timeout_s=60)
    if completion.audio is None:
        raise RuntimeError("a completed request names no audio")
    await download(completion.audio, target)
    origin = "from the store" if completion.cached else "newly spoken"
    return f"{completion.audio.duration_s:.1f} s, {origin}, after {time.monotonic() - started:.2f} s"


async def play(path: Path) -> bool:
    """Play a file with the first player found; False without one."""
    for player, options in PLAYERS.items():
        if program := shutil.which(player):
            process = await asyncio.create_subprocess_exec(
                program, *options, str(path), stderr=asyncio.subprocess.DEVNULL
            )
            return await process.wait() == 0
    return False


async def questions() -> AsyncIterator[str]:
    """Lines from the keyboard or a pipe; a prompt for the former."""
    interactive = sys.stdin.isatty()
    if interactive:
        print("> ", end="", flush=True)
    async for lines in line_batches(sys.stdin.buffer):
        for line in lines:
            question = (line.content or b"").decode("utf-8", "replace").strip()
            if not interactive:
                print(f"> {question}")
            yield question
        if interactive:
            print("> ", end="", flush=True)


async def chat(options: argparse.Namespace) -> None:
    """Answer until goodbye or the end of the input."""
    folder = options.out or Path(tempfile.mkdtemp(prefix="voxbus-chat-"))
    folder.mkdir(parents=True, exist_ok=True)
    async with SpeechClient(client_settings(options.endpoints).kafka, client_id="chatbot") as speech:
        print("云帆商城 Cloudsail — 请提问 / ask me (再见 / bye ends)")
        number = 0
        async for question in questions():
            number += 1
            reply = answer(question)
            print(reply)
            target = folder / f"{number:02d}.wav"
            try:
                how = await speak(speech, reply, options.voice, target)
                played = options.play and await play(target)
                print(f"  [{how}]" if played else f"  [{how}: {target}]", flush=True)
            except (SpeechFailedError, SpeechTimeoutError, UserError) as error:
                print(f"  [not spoken: {error}]", flush=True)
            if GOODBYE.search(question):
                break


def main() -> int:
    """Run the chatbot; Ctrl-C ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", default="female1")
    parser.add_argument("--out", type=Path, help="folder for the audio; a temporary one when absent")
    parser.add_argument("--no-play", dest="play", action="store_false", help="only save the answers")
    parser.add_argument("--endpoints", type=Path, help="endpoints.json of a running `voxbus up`")
    try:
        asyncio.run(chat(parser.parse_args()))
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        print(f"chatbot: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
