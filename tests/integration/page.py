"""The page of a worker, in Chromium, which is told what to do over its DevTools protocol
(chromedevtools.github.io/devtools-protocol). A picture of it is kept where RPCREW_PICTURES says."""
import base64
import json
import os
import re
import subprocess
import urllib.request

import websocket
from support import PATIENCE, Case, eventually, free_port, main


class Browser:
    def __init__(self, directory):
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1000,900",
             "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={directory}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = os.path.join(directory, "DevToolsActivePort")
        eventually(lambda: os.path.exists(told) and open(told, encoding="ascii").read().count("\n"), 60)
        port = open(told, encoding="ascii").read().split()[0]
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE))
        page = next(one for one in pages if one["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=60)
        self.count = 0
        self.events = []
        self.say("Page.enable")
        self.say("Log.enable")
        self.say("Runtime.enable")
        self.say("Network.enable")

    def say(self, method, **params):
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            got = json.loads(self.socket.recv())
            if got.get("id") == self.count:
                assert "error" not in got, got
                return got["result"]
            self.events.append(got)

    def run(self, script):
        got = self.say("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    def press(self, key, text=None, modifiers=0):
        codes = {"Tab": 9, "Enter": 13, " ": 32, "/": 191}
        more = {"text": text} if text else {}
        for kind in "keyDown", "keyUp":
            self.say("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers,
                     windowsVirtualKeyCode=codes.get(key, ord(key[0].upper())), **(more if kind == "keyDown" else {}))

    def write(self, text):
        self.say("Input.insertText", text=text)

    def end(self):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Page(Case):
    def setUp(self):
        super().setUp()
        self.url = f"http://127.0.0.1:{free_port()}/rpc"
        self.worker("conformance", "--listen", self.url)
        self.browser = Browser(self.socket_path("profile"))
        self.addCleanup(self.browser.end)
        self.visit()

    def visit(self):
        self.browser.say("Page.navigate", url=self.url)
        eventually(lambda: self.browser.run("document.querySelectorAll('#methods details').length") or 0)

    def text(self, selector):
        return self.browser.run(f"(document.querySelector({json.dumps(selector)}) || {{}}).textContent")

    def fill(self, method, **values):
        for name, value in values.items():
            self.browser.run(f"""(() => {{
                const box = document.querySelector('details[name="{method}"]');
                box.open = true;
                const label = [...box.querySelectorAll('label')].find(l => l.textContent.startsWith({json.dumps(name + ":")}));
                document.getElementById(label.htmlFor).value = {json.dumps(value)};
            }})()""")

    def call(self, method, **values):
        """What the page shows of a call's end, and how."""
        self.fill(method, **values)
        box = f"document.querySelector('details[name=\"{method}\"]')"
        calls = "document.querySelectorAll('#history li').length"
        before = self.browser.run(calls)
        self.browser.run(f"{box}.querySelector('form').requestSubmit()")
        eventually(lambda: self.browser.run(calls) > before)
        return self.browser.run(f"(p => [p.className, p.textContent])({box}.querySelector('pre'))")

    def picture(self, name):
        place = os.environ.get("RPCREW_PICTURES")
        data = base64.b64decode(self.browser.say("Page.captureScreenshot")["data"])
        if place:
            with open(os.path.join(place, name), "wb") as file:
                file.write(data)
        return data

    def test_lists_calls_and_shows_errors_where_they_belong(self):
        names = self.browser.run("[...document.querySelectorAll('#methods summary b')].map(b => b.textContent)")
        self.assertIn("subtract", names)
        self.assertEqual(self.text("#title"), "conformance")
        self.assertIn(f"{len(names)} methods at {self.url}", self.text("#state"))
        self.assertIn("(minuend, subtrahend) → number", self.text('details[name="subtract"] summary'))
        self.assertIn("Returns minuend - subtrahend.", self.text('details[name="subtract"]'))
        self.assertEqual(self.call("subtract", minuend="42", subtrahend="23"), ["good", "19"])
        self.assertEqual(self.call("sum", numbers="[1, 2, 3.5]"), ["good", "6.5"])
        self.assertEqual(self.call("echo", params="[12345678901234567890]"), ["good", "12345678901234567890"])
        self.assertEqual(self.call("echo", params='[{"a":[1,{}],"b":"x\\"<b>"}]'),
                         ["good", '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": "x\\"<b>"\n}'])
        self.assertEqual(self.call("get_data"), ["good", '[\n  "hello",\n  5\n]'])
        kind, text = self.call("fail", code="7", message="no luck", data='{"why":1}')
        self.assertEqual((kind, text), ("bad", 'no luck (7)\n{\n  "why": 1\n}'))
        kind, text = self.call("fail", code="7.5", message="x", data="")
        self.assertIn("-32602", text)
        wrong = self.browser.run("""(() => {
            const bad = document.querySelector('details[name="fail"] [aria-invalid=true]');
            return [document.querySelector(`label[for=${bad.id}]`).textContent, document.activeElement === bad,
                document.getElementById(bad.getAttribute('aria-describedby')).textContent];
        })()""")
        self.assertEqual(wrong[:2], ["code: int", True])
        self.assertIn("code", wrong[2])
        self.assertGreater(len(self.picture("page-light.png")), 10000)

    def test_what_a_server_in_between_answers_is_a_failure(self):
        for status, body in (503, '<!DOCTYPE HTML PUBLIC "-//X//Y">\n<p>"away"'), (502, "<html>Bad gateway</html>"), (500, ""), (200, "[]"):
            self.browser.run(f"window.fetch = async () => new Response({json.dumps(body)}, {{ status: {status} }})")
            kind, text = self.call("get_data")
            self.assertEqual((kind, text.split(",")[0]), ("bad", f"HTTP {status}"))
            self.assertIn(body, text)

    def test_what_is_wrong_is_told_before_anything_is_sent(self):
        self.fill("subtract", minuend="x", subtrahend="")
        self.browser.run("document.querySelector('details[name=\"subtract\"] form').requestSubmit()")
        self.assertEqual(self.browser.run("[...document.querySelectorAll('details[name=\"subtract\"] .wrong')].map(w => w.textContent)"),
                         ["wants number, as JSON", "wants a value"])
        self.assertEqual(self.browser.run("document.querySelectorAll('#history li').length"), 0)

    def test_by_keyboard_alone(self):
        b = self.browser
        b.press("/", "/")
        self.assertEqual(b.run("document.activeElement.id"), "filter")
        b.write("subtract")
        self.assertEqual(b.run("[...document.querySelectorAll('#methods details')].filter(d => !d.hidden).map(d => d.getAttribute('name'))"),
                         ["subtract"])
        b.press("Tab")
        self.assertEqual(b.run("document.activeElement.tagName"), "SUMMARY")
        self.assertNotEqual(b.run("getComputedStyle(document.activeElement).outlineStyle"), "none")
        b.press("Enter", "\r")
        b.press("Tab")
        b.write("50")
        b.press("Tab")
        b.write("8")
        b.press("Enter", "\r")
        eventually(lambda: self.text('details[name="subtract"] pre') == "42")
        self.assertIn("subtract(minuend: 50, subtrahend: 8)", self.text("#history"))

    def test_what_is_copied_can_be_run(self):
        b = self.browser
        b.run("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }")
        self.fill("fail", code="7", message="it's \"so\" bad", data="[1]")
        buttons = "[...document.querySelectorAll('details[name=\"fail\"] button')]"
        b.run(f"{buttons}.find(x => x.textContent.includes('curl')).click()")
        curl = b.run("window.copied")
        got = json.loads(subprocess.run(["bash", "-c", curl + " -s"], capture_output=True, text=True, check=True).stdout)
        self.assertEqual(got["error"], {"code": 7, "message": "it's \"so\" bad", "data": [1]})
        b.run(f"{buttons}.find(x => x.textContent.includes('rpcrew')).click()")
        command = b.run("window.copied")
        self.assertTrue(command.startswith("rpcrew call '"), command)
        for params, copied in (('[12345678901234567890, {"a": [1]}]', "'12345678901234567890' '{\"a\": [1]}'"), ("[]", ""), ("{}", ""),
                               ('{"a": 1 , "b":"x,}"}', "'a=1' 'b=\"x,}\"'")):
            self.fill("echo", params=params)
            b.run("[...document.querySelectorAll('details[name=\"echo\"] button')].find(x => x.textContent.includes('rpcrew')).click()")
            self.assertEqual(b.run("window.copied").partition("'echo'")[2].strip(), copied)
        path = os.pathsep.join([os.environ["RPCREW_BIN"], os.environ["PATH"]])
        ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
        self.assertIn("it's \"so\" bad (code 7)", ran.stderr)

    def test_again_fills_the_form(self):
        self.call("subtract", minuend="42", subtrahend="23")
        self.fill("subtract", minuend="1", subtrahend="1")
        self.browser.run("document.querySelector('#history button').click()")
        self.assertEqual(self.browser.run("[...document.querySelectorAll('details[name=\"subtract\"] input[type=text]')].map(i => i.value)"),
                         ["42", "23"])

    def test_dark_where_that_is_wanted_and_nothing_from_elsewhere(self):
        b = self.browser

        def brightness():
            red, green, blue = map(int, re.findall(r"\d+", b.run("getComputedStyle(document.body).backgroundColor"))[:3])
            return (red + green + blue) / 3
        b.say("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        self.assertGreater(brightness(), 200)
        b.say("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        self.assertLess(brightness(), 60)
        self.call("subtract", minuend="42", subtrahend="23")
        self.assertGreater(len(self.picture("page-dark.png")), 10000)
        asked = {one["params"]["request"]["url"] for one in b.events if one["method"] == "Network.requestWillBeSent"}
        self.assertEqual({url for url in asked if not url.startswith("data:")}, {self.url, self.url + "/openrpc.json"})
        self.assertEqual([one for one in b.events if one["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")], [])


if __name__ == "__main__":
    main()
