"""A page as headless Chromium opens it: its requests, and the messages on its console."""

import json
import os
import select
import shutil
import subprocess
import sys
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --remote-debugging-pipe"
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def visit(page, folder, seconds=60):
    """Open a file; return the addresses that it asks for, itself first, and its messages.

    Other requests than for the file itself are noted and fail.

    The DevTools protocol goes through two pipes: the browser reads file 3 and writes file 4.
    """
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    pipes = to_browser, from_browser
    command = [sys.executable, "-c", START, *map(str, pipes), CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder}"]  # fmt: skip
    process = subprocess.Popen(command, pass_fds=pipes, stderr=subprocess.DEVNULL)
    os.close(to_browser)
    os.close(from_browser)
    try:
        return _talk(commands, answers, page.resolve().as_uri(), time.monotonic() + seconds)
    finally:
        os.close(commands)
        os.close(answers)
        process.terminate()
        process.wait(20)


def _talk(commands, answers, address, end):
    requests, messages, session, received, left = [], [], None, False, b""

    def send(method, **params):
        message = {"id": len(sent) + 1, "method": method, "params": params}
        sent.append(method)
        text = json.dumps({**message, "sessionId": session} if session else message)
        os.write(commands, text.encode() + b"\0")

    sent = []
    send("Target.createTarget", url="about:blank")
    while time.monotonic() < end:
        ready, _, _ = select.select([answers], [], [], 0.7 if received else 5)
        if not ready and received:  # loaded, and quiet since then
            return requests, messages
        piece = os.read(answers, 1 << 20) if ready else b""
        *texts, left = (left + piece).split(b"\0")
        for text in texts:
            message = json.loads(text)
            result, params = message.get("result", {}), message.get("params", {})
            method = message.get("method")
            if "targetId" in result:
                send("Target.attachToTarget", targetId=result["targetId"], flatten=True)
            elif "sessionId" in result:
                session = result["sessionId"]
                for domain in ("Fetch", "Log", "Runtime", "Page"):
                    send(f"{domain}.enable")
                send("Page.navigate", url=address)
            elif (
                method == "Fetch.requestPaused"
            ):  # each request waits for an answer: none is missed
                url = params["request"]["url"]
                requests.append(url)
                allowed = url == address
                answer = {} if allowed else {"errorReason": "BlockedByClient"}
                send(f"Fetch.{'continue' if allowed else 'fail'}Request", requestId=params["requestId"], **answer)  # fmt: skip
            elif method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):  # fmt: skip
                messages.append(json.dumps(params))
            elif method == "Page.loadEventFired":
                received = True
    raise TimeoutError(f"{address}: not loaded; sent {sent}")
