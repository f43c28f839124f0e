"""docs/calling.md: the worker and each caller, run as they are printed but for the addresses."""
import os
import re
import shlex
import subprocess
import uuid

from support import Case, free_port, main

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "calling.md")
NODE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node")
PROGRAMS = {"sh": ["sh"], "python": ["/usr/bin/python3", "-"], "js": ["node", "--input-type=module", "-"]}

with open(os.environ["RPCREW_BROKER"], encoding="utf-8") as shared_file:
    SHARED = shared_file.readline().strip()


class Calling(Case):
    def test_each_sample(self):
        with open(PAGE, encoding="utf-8") as file:
            page = file.read()
        queue = f"calling-{uuid.uuid4()}"
        for printed, here in (("amqp://localhost/", SHARED), ("?queue=calc", f"?queue={queue}"), ('"calc"', f'"{queue}"'),
                              ("127.0.0.1:8080", f"127.0.0.1:{free_port()}"), ("127.0.0.1:7000", f"127.0.0.1:{free_port()}"),
                              ("127.0.0.1:5555", f"127.0.0.1:{free_port()}")):
            self.assertIn(printed, page)
            page = page.replace(printed, here)
        worker = self.worker(*shlex.split(re.search(r"\n```\n(calc .*)\n```\n", page).group(1)))
        samples = [(part.split("\n", 1)[0], language, code) for part in page.split("\n## ")[1:]
                   for language, code in re.findall(r"```(\w+)\n(.*?)```", part, re.S)]
        self.assertGreaterEqual(len(samples), 7)
        for heading, language, code in samples:
            with self.subTest(heading):
                got = subprocess.run(PROGRAMS[language], input=code, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
                whole = '{"jsonrpc":"2.0","result":19,"id":1}' if heading == "curl" else "19\n"
                self.assertEqual((got.returncode, got.stdout, got.stderr), (0, whole, ""))
        self.assertEqual(worker.stop(), 0)
        running = []
        for heading, language, code in samples:
            # pylint: disable-next=consider-using-with
            process = subprocess.Popen(PROGRAMS[language], stdin=subprocess.PIPE, cwd=NODE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, text=True)
            process.stdin.write(code)
            process.stdin.close()
            running.append((heading, process))
        for heading, process in running:
            with self.subTest(heading, worker=None):
                shown = process.stdout.read()
                process.stdout.close()
                self.assertEqual((process.wait(60) != 0, shown), (True, ""))


if __name__ == "__main__":
    main()
