"""That the arrows between the folders of lib/src point one way: usage: rooms.py LIB_SRC"""
import os
import re
import sys

# What each room may include, beside itself and the public headers.
BELOW = {
    "core": set(),
    "protocol": {"core"},
    "service": {"core", "protocol"},
    "io": {"core", "protocol"},
    "transport": {"core"},
    "server": {"core", "protocol", "service", "io"},
    "client": {"core", "protocol", "service", "io"},
    "program": {"core", "server", "client", "service"},
}
# Within the room of services: a table knows no calls, a call no table.
APART = {"service/table": "service/call", "service/call": "service/table", "service/entry": "service/call"}


def main(root):
    wrong = []
    count = 0
    assert set(os.listdir(root)) == set(BELOW), f"rooms are {sorted(os.listdir(root))}"
    for room in sorted(BELOW):
        for name in sorted(os.listdir(os.path.join(root, room))):
            with open(os.path.join(root, room, name), encoding="utf-8") as file:
                included = re.findall(r'^#include "([^"]+)\.h"', file.read(), re.MULTILINE)
            for header in included:
                count += 1
                to = header.partition("/")[0]
                if to != room and to not in BELOW[room]:
                    wrong.append(f"{room}/{name} includes {header}.h")
                if APART.get(f"{room}/{os.path.splitext(name)[0]}") == header:
                    wrong.append(f"{room}/{name} includes {header}.h")
    print("\n".join(wrong))
    print(f"{count - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
