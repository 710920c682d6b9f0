"""A real Chromium without a window, spoken to by the Chrome DevTools Protocol."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES: Final = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # tests run as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
)
WAIT_SECONDS: Final = 15.0


class Page:
    """One tab. What it says and asks for is remembered."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        """Errors and warnings in the console, whoever they are from."""
        self.asked_for: list[str] = []
        """Every URL that was requested."""

    async def listen(self) -> None:
        """Take what the browser says, until it says no more."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._count += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._count] = answer
        await self._socket.send_json(
            {"id": self._count, "method": method, "params": params, "sessionId": self._session}
        )
        told = await asyncio.wait_for(answer, WAIT_SECONDS)
        assert "error" not in told, told
        found: dict[str, Any] = told["result"]
        return found

    async def begin(self) -> Self:
        """Have everything reported that a test may ask about."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        return self

    async def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), WAIT_SECONDS)

    async def look(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        told = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a condition holds in the page."""
        held = await self.look(
            f"""new Promise((tell) => {{
                const end = performance.now() + {WAIT_SECONDS * 1000 - 1000};
                const look = () => ({condition}) ? tell(true)
                    : performance.now() > end ? tell(false) : setTimeout(look, 20);
                look();
            }})"""
        )
        assert held, f"never: {condition}\n{await self.look('document.body.innerText')}"

    async def press(self, key: str) -> None:
        """Press and let go a key: one character, or a name such as `Escape`."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9, "End": 35}
        about = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0]))}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        for one in text:
            await self.press(one)

    async def size(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Be a screen of this size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=is_phone,
        )

    async def prefer(self, scheme: str) -> None:
        """Prefer light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self, path: Path, *, is_whole: bool = False) -> None:
        """Write down as PNG what is to be seen, or the page whole."""
        told = await self.call("Page.captureScreenshot", captureBeyondViewport=is_whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(told["data"]))

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.asked_for.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url')}")


def found() -> str:
    """Where Chromium is.

    Raises:
        FileNotFoundError: it is not installed.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        msg = "no Chromium here: apt-get install chromium"
        raise FileNotFoundError(msg)
    return path


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """An empty page in a browser of its own, which ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await asyncio.create_subprocess_exec(
            found(),
            *SWITCHES,
            f"--user-data-dir={home}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"HOME": home},
        )
        try:
            address = await asyncio.wait_for(_address(process), WAIT_SECONDS)
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=1 << 26) as socket,
                asyncio.TaskGroup() as tasks,
            ):
                page = Page(socket, await _attached(socket))
                listening = tasks.create_task(page.listen())
                yield await page.begin()
                listening.cancel()
        finally:
            process.kill()
            await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        before, found, address = line.decode().strip().partition("DevTools listening on ")
        if found and not before:
            return address
    msg = "Chromium ended before it listened"
    raise RuntimeError(msg)


async def _attached(socket: aiohttp.ClientWebSocketResponse) -> str:
    """The session of the page that every browser begins with."""
    await socket.send_json({"id": 1, "method": "Target.getTargets"})
    targets = (await _answer(socket))["targetInfos"]
    target = next(one["targetId"] for one in targets if one["type"] == "page")
    await socket.send_json(
        {
            "id": 2,
            "method": "Target.attachToTarget",
            "params": {"targetId": target, "flatten": True},
        }
    )
    session: str = (await _answer(socket))["sessionId"]
    return session


async def _answer(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    while True:
        told = await socket.receive_json()
        if "id" in told:
            found: dict[str, Any] = told["result"]
            return found
