#!/bin/sh
# pika 1.2.0 (Debian 12's python3-pika) reads a header that is a double as its whole part, and cannot write one.
#
# AMQP 0-9-1 tables have a type for doubles ('d') and one for floats ('f'), which RabbitMQ, rabbitmq-c and amqplib
# carry. pika's decoder turns both into Python integers: a consumer sees 0 where 0.75 was sent, without a word. Its
# encoder raises UnsupportedAMQPFieldException in basic_publish. Decimals go both ways, as type 'D', if their
# digits fit into 32 bits: else the encoder raises struct.error.
#
# For rpcrew: a worker takes doubles in headers as they are; who sends headers to services written with pika puts
# fractions into them as text.
#
# Source: pika/data.py, decode_value and encode_value (https://github.com/pika/pika); later sources read doubles as
# such, and still write none.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
apt-get download -qq python3-pika=1.2.0-1 2>/dev/null
dpkg-deb -x python3-pika_1.2.0-1_all.deb .
PYTHONPATH=$room/usr/lib/python3/dist-packages /usr/bin/python3 - <<'PYTHON'
import decimal
import struct

import pika
from pika import data, exceptions

print("pika", pika.__version__)
assert pika.__version__ == "1.2.0"


def decoded(kind, form, value):
    entry = b"\x01h" + kind + struct.pack(form, value)
    return data.decode_table(struct.pack(">I", len(entry)) + entry, 0)[0]["h"]


def encoded(value):
    pieces = []
    data.encode_table(pieces, {"h": value})
    return b"".join(pieces)


for kind, form in ((b"d", ">d"), (b"f", ">f")):
    for sent, seen in ((0.75, 0), (-2.5, -2), (1e15, int(struct.unpack(form, struct.pack(form, 1e15))[0]))):
        value = decoded(kind, form, sent)
        print("type", kind.decode(), "sent", sent, "read", int(value))
        assert isinstance(value, int) and value == seen

try:
    encoded(1.5)
    raise SystemExit("a float was written: this has changed")
except exceptions.UnsupportedAMQPFieldException:
    print("writing 1.5 raises UnsupportedAMQPFieldException")

assert encoded(decimal.Decimal("1.5")).endswith(b"hD\x01" + struct.pack(">i", 15))
try:
    encoded(decimal.Decimal("3.14159265358979"))
    raise SystemExit("a long decimal was written: this has changed")
except struct.error as error:
    print("writing Decimal('3.14159265358979') raises struct.error:", error)
PYTHON
