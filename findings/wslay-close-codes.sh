#!/bin/sh
# wslay 1.1.1 (Debian 12's libwslay1) takes the close codes 1012, 1013 and 1014 for a breach of the protocol.
#
# RFC 6455 leaves 1000 to 2999 to itself and its registry, where IANA has since listed 1012 (service restart), 1013 (try
# again later) and 1014 (bad gateway): servers and proxies send them when they are busy or about to go. wslay knows the
# codes of 2011 only. It answers the others with 1002, as if the other end had broken the rules, and its message
# callback, which would have had code and reason, is not called; wslay_event_get_status_code_received says 1006. That
# the other end has asked for patience cannot be told from what it shows.
#
# For rpcrew: its caller over WebSocket keeps the bytes of a close frame itself, from the callback for pieces of frames,
# which does come, so that the error of a call names the service's own code and reason.
#
# Source: RFC 6455, section 7.4.2; https://www.iana.org/assignments/websocket/websocket.xml; lib/wslay_event.c, where a
# close frame that has come is checked (https://github.com/tatsuhiro-t/wslay).
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
chmod 755 "$room"
cd "$room"
version=1.1.1-3+b1
for package in libwslay1 libwslay-dev; do
    apt-get download -qq $package=$version 2>/dev/null
    dpkg-deb -x ${package}_*.deb .
done
lib=$(dirname "$(find . -name 'libwslay.so.1')")

cat > closes.c <<'C'
#include <stdio.h>
#include <string.h>
#include <wslay/wslay.h>

struct wire {
    uint8_t in[16], out[64];
    size_t in_size, in_at, out_size;
    int told;
    unsigned piece;
};

static ssize_t on_recv(wslay_event_context_ptr context, uint8_t *room, size_t size, int flags, void *mine)
{
    struct wire *w = mine;
    size_t left = w->in_size - w->in_at;
    (void)flags;
    if (!left) {
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    size = left < size ? left : size;
    memcpy(room, w->in + w->in_at, size);
    w->in_at += size;
    return (ssize_t)size;
}

static ssize_t on_send(wslay_event_context_ptr context, const uint8_t *bytes, size_t size, int flags, void *mine)
{
    struct wire *w = mine;
    (void)context;
    (void)flags;
    memcpy(w->out + w->out_size, bytes, size);
    w->out_size += size;
    return (ssize_t)size;
}

static int on_mask(wslay_event_context_ptr context, uint8_t *room, size_t size, void *mine)
{
    (void)context;
    (void)mine;
    memset(room, 0, size);
    return 0;
}

static void on_message(wslay_event_context_ptr context, const struct wslay_event_on_msg_recv_arg *arg, void *mine)
{
    (void)context;
    ((struct wire *)mine)->told = arg->status_code;
}

static void on_piece(wslay_event_context_ptr context, const struct wslay_event_on_frame_recv_chunk_arg *arg, void *mine)
{
    (void)context;
    for (size_t i = 0; i < arg->data_length; i++)
        ((struct wire *)mine)->piece = ((struct wire *)mine)->piece << 8 | arg->data[i];
}

int main(void)
{
    static const unsigned codes[] = { 1000, 1011, 1012, 1013, 1014, 3000 };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct wire w = { .in = { 0x88, 2, (uint8_t)(codes[i] >> 8), (uint8_t)codes[i] }, .in_size = 4 };
        const struct wslay_event_callbacks callbacks = { .recv_callback = on_recv,
                                                         .send_callback = on_send,
                                                         .genmask_callback = on_mask,
                                                         .on_frame_recv_chunk_callback = on_piece,
                                                         .on_msg_recv_callback = on_message };
        wslay_event_context_ptr context;
        wslay_event_context_client_init(&context, &callbacks, &w);
        int result = wslay_event_recv(context);
        wslay_event_send(context);
        printf("%u: recv %d, callback %d, received %u, pieces %u, answered %u\n", codes[i], result, w.told,
               wslay_event_get_status_code_received(context), w.piece, (unsigned)w.out[6] << 8 | w.out[7]);
        wslay_event_context_free(context);
    }
    return 0;
}
C
cc -Iusr/include closes.c -o closes -L"$lib" -l:libwslay.so.1
LD_LIBRARY_PATH=$lib ./closes | tee seen
cat > expected <<'EXPECTED'
1000: recv 0, callback 1000, received 1000, pieces 1000, answered 1000
1011: recv 0, callback 1011, received 1011, pieces 1011, answered 1011
1012: recv 0, callback 0, received 1006, pieces 1012, answered 1002
1013: recv 0, callback 0, received 1006, pieces 1013, answered 1002
1014: recv 0, callback 0, received 1006, pieces 1014, answered 1002
3000: recv 0, callback 3000, received 3000, pieces 3000, answered 3000
EXPECTED
diff expected seen
