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
        self.worker(*shlex.split(re.search(r"\n```\n(calc .*)\n```\n", page).group(1)))
        count = 0
        for part in page.split("\n## ")[1:]:
            for language, code in re.findall(r"```(\w+)\n(.*?)```", part, re.S):
                with self.subTest(part.split("\n", 1)[0]):
                    got = subprocess.run(PROGRAMS[language], input=code, cwd=NODE, capture_output=True, text=True, timeout=60,
                                         check=False)
                    shown = re.sub(r'^\{"jsonrpc":"2.0","result":(\d+),"id":1\}$', r"\1", got.stdout.strip())
                    self.assertEqual((got.returncode, shown, got.stderr), (0, "19", ""))
                    count += 1
        self.assertGreaterEqual(count, 7)


if __name__ == "__main__":
    main()
