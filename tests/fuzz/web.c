/* HTTP, WebSocket and FastCGI as a worker speaks them, over a real connection: however the bytes are cut up,
 * the same requests are found. The first byte chooses which of them is spoken, the second the size of the
 * pieces. */
#include "fuzz.h"

#include "transport/fcgi_session.h"
#include "transport/http_session.h"
#include "transport/stream_worker.h"
#include "transport/ws_session.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 12, ROUNDS = 40 };

struct outcome {
    size_t requests;
    uint64_t hash; /* of their bodies and types */
};

static crew_message_pool messages = { .spare_max = 4 };
static crew_error lost;
static int wake_fd;

static void note(struct outcome *outcome, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        outcome->hash = (outcome->hash ^ (unsigned char)bytes[i]) * 0x100000001b3U;
}

/* Takes what there is, and answers it. */
static bool drive(struct stream_worker *w, int peer, struct outcome *outcome)
{
    char nothing[4096];
    crew_room room = { .messages = 4, .bytes = MOST };
    crew_list got = { 0 };
    REQUIRE(stream_worker_wait(w, wake_fd, 0, &room) == CREW_OK);
    REQUIRE(stream_worker_recv(w, &got, &room) == CREW_OK);
    bool some = got.count > 0;
    for (crew_message *m = got.head; m; m = m->next) {
        outcome->requests++;
        note(outcome, m->body.data, m->body.size);
        note(outcome, m->content_type ? m->content_type : "", m->content_type ? strlen(m->content_type) : 0);
        REQUIRE(m->body.size <= MOST);
        atomic_fetch_sub(&m->peer->in_flight, 1);
        m->kind = m->body.size % 3 ? CREW_SETTLE_REPLY : CREW_SETTLE_DONE;
        crew_buffer_clear(&m->reply);
        crew_buffer_text(&m->reply, "{\"result\":1}");
        m->content_type = "application/json";
    }
    REQUIRE(stream_worker_send(w, &got) == CREW_OK);
    while (recv(peer, nothing, sizeof nothing, MSG_DONTWAIT) > 0)
        some = true;
    return some;
}

static void speak(unsigned kind, crew_string bytes, size_t piece, struct outcome *outcome)
{
    static struct stream_worker w;
    crew_url *url = NULL;
    crew_error why;
    int ends[2];
    REQUIRE(crew_url_parse("http://127.0.0.1:1/rpc", &url, &why) == CREW_OK);
    struct http_shared shared = { .behind = kind == 2 };
    const crew_limits limits = { .message_bytes = MOST };
    const crew_transport_config config = { .url = url,
                                           .in_flight_max = 64,
                                           .limits = crew_limits_resolve(&limits),
                                           .hard_bytes = 4 * MOST,
                                           .lost = &lost,
                                           .messages = &messages };
    http_rules_read(&shared.rules, url, MOST);
    shared.rules.head_most = 1024;
    *outcome = (struct outcome){ .hash = 0xcbf29ce484222325U };
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    REQUIRE(stream_worker_open(&w, &config, &why) == CREW_OK);
    w.set.session = kind == 2 ? &stream_fcgi : &stream_http;
    w.set.shared = &shared;
    REQUIRE(stream_worker_adopt(&w, ends[0], ends[0], &why) == CREW_OK);
    if (kind == 1)
        REQUIRE(ws_begin(w.set.streams, false) == CREW_OK);
    for (size_t at = 0; at < bytes.size; at += piece) {
        size_t size = bytes.size - at < piece ? bytes.size - at : piece;
        if (send(ends[1], bytes.data + at, size, MSG_NOSIGNAL) < 0)
            break; /* it has been closed */
        (void)drive(&w, ends[1], outcome);
    }
    for (int i = 0, quiet = 0; i < ROUNDS * 20 && quiet < 3; i++)
        quiet = drive(&w, ends[1], outcome) ? 0 : quiet + 1;
    (void)shutdown(ends[1], SHUT_WR);
    for (int i = 0; i < ROUNDS && w.set.count; i++)
        (void)drive(&w, ends[1], outcome);
    close(ends[1]);
    stream_worker_close(&w, 0, NULL);
    http_shared_fini(&shared);
    crew_url_free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, cut;
    if (size < 2 || size > 4096)
        return 0;
    if (!wake_fd)
        wake_fd = eventfd(0, EFD_CLOEXEC);
    crew_string bytes = fuzz_string(data + 2, size - 2);
    speak(data[0] % 3, bytes, 1 << 16, &whole);
    speak(data[0] % 3, bytes, data[1] % 40 + 1U, &cut);
    REQUIRE(whole.requests == cut.requests && whole.hash == cut.hash);
    return 0;
}
