#!/bin/sh
# RabbitMQ 3.10.8 (Debian 12's rabbitmq-server) closes the channel of whoever publishes with a header CC or BCC that is
# text, as mail has it.
#
# A header is the application's own, one would think: any name, any value. But the broker reads CC and BCC, in these
# letters, as further routing keys (sender-selected distribution), and wants an array there. A text is answered by
# 406, PRECONDITION_FAILED, which takes the channel with it, and whatever else is under way on it: consumers, messages
# that have not been acknowledged, confirms. 'cc' and 'Cc' are headers as others are. Of an array, what is no text is
# passed over; BCC is taken out before the message is delivered, CC stays.
#
# For rpcrew: headers of a call come from outside, from a gateway's own callers, say; so 'cc' and 'bcc', in whatever
# letters, are refused when the call is started, and cost that call alone.
#
# Source: https://www.rabbitmq.com/docs/sender-selected.
set -eu
room=$(mktemp -d)
started=""
end() {
    for pid in $started; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$room"
}
trap end EXIT
chmod 755 "$room"
cd "$room"
rabbitmq=3.10.8-1.1+deb12u1 erlang=1:25.2.3+dfsg-1+deb12u4 pika=1.2.0-1
for package in rabbitmq-server=$rabbitmq python3-pika=$pika erlang-base=$erlang erlang-asn1=$erlang erlang-crypto=$erlang \
    erlang-eldap=$erlang erlang-inets=$erlang erlang-mnesia=$erlang erlang-os-mon=$erlang erlang-parsetools=$erlang \
    erlang-public-key=$erlang erlang-runtime-tools=$erlang erlang-ssl=$erlang erlang-syntax-tools=$erlang \
    erlang-tools=$erlang erlang-xmerl=$erlang; do
    apt-get download -qq "$package" 2>/dev/null
done
for file in *.deb; do
    dpkg-deb -x "$file" .
done
sed -i "s|^ROOTDIR=.*|ROOTDIR=$room/usr/lib/erlang|" usr/lib/erlang/bin/erl usr/lib/erlang/erts-*/bin/erl
ports=$(/usr/bin/python3 -c '
import socket
all = [socket.socket() for _ in range(3)]
for one in all:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in all))')
# shellcheck disable=SC2086 # three words
set -- $ports
export HOME="$room" PATH="$room/usr/lib/erlang/bin:$PATH" ERL_EPMD_PORT="$1" ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_NODENAME="finding-$2@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$2" RABBITMQ_DIST_PORT="$3"
export RABBITMQ_MNESIA_BASE="$room/data" RABBITMQ_LOG_BASE="$room/log" RABBITMQ_CONF_ENV_FILE=/dev/null
export RABBITMQ_ENABLED_PLUGINS_FILE="$room/plugins" RABBITMQ_CONFIG_FILE="$room/none"
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
"$(find "$room/usr/lib/erlang" -name epmd -path '*/erts-*' | head -n 1)" -port "$1" >/dev/null 2>&1 &
started=$!
"$(find "$room/usr/lib/rabbitmq" -name rabbitmq-server -path '*/sbin/*')" >server.log 2>&1 &
started="$! $started"

cat > publish.py <<'PYTHON'
import os
import socket
import time

import pika

port = int(os.environ["RABBITMQ_NODE_PORT"])
for _ in range(600):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            break
    time.sleep(0.1)
for _ in range(100):
    try:
        pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port)).close()
        break
    except pika.exceptions.AMQPError:
        time.sleep(0.2)
for headers in {"CC": "text"}, {"BCC": "text"}, {"cc": "text"}, {"Cc": "text"}, {"CC": ["other"]}, {"BCC": ["other"]}, {"CC": [1]}:
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
    channel = connection.channel()
    for queue in "first", "other":
        channel.queue_declare(queue)
        channel.queue_purge(queue)
    channel.basic_publish("", "first", b"x", pika.BasicProperties(headers=headers))
    try:
        _, properties, _ = channel.basic_get("first", auto_ack=True)
        copied = channel.basic_get("other", auto_ack=True)[0] is not None
        print(headers, "comes with", properties.headers, "and goes to the other queue, too" if copied else "alone")
    except pika.exceptions.ChannelClosedByBroker as closed:
        print(headers, "closes the channel:", closed.reply_code, closed.reply_text)
    connection.close()
PYTHON
PYTHONPATH="$room/usr/lib/python3/dist-packages" /usr/bin/python3 publish.py | tee seen
cat > expected <<'EXPECTED'
{'CC': 'text'} closes the channel: 406 PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",longstr}
{'BCC': 'text'} closes the channel: 406 PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"BCC",longstr}
{'cc': 'text'} comes with {'cc': 'text'} alone
{'Cc': 'text'} comes with {'Cc': 'text'} alone
{'CC': ['other']} comes with {'CC': ['other']} and goes to the other queue, too
{'BCC': ['other']} comes with {} and goes to the other queue, too
{'CC': [1]} comes with {'CC': [1]} alone
EXPECTED
diff expected seen
