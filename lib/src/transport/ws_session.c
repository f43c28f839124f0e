/* wslay reads the frames, joins them and answers pings and closes. It keeps 4 KiB of what it read, so a
 * worker has its context only while a frame or a message is under way, and writes its own frames, which are
 * not masked, without it. */
#include "transport/ws_session.h"

#include "core/base64.h"
#include "core/utf8.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <wslay/wslay.h>

static const char json[] = "application/json", msgpack[] = "application/msgpack";

enum { HEAD_LEAST = 2, MASK_SIZE = 4 };

struct ws {
    wslay_event_context_ptr context; /* NULL: nothing is under way */
    bool client;
    bool closed;        /* a close was sent: nothing more is */
    bool pinged;        /* and nothing has come since */
    bool joins;         /* a message's first frames have come */
    bool in_control;    /* the frame is none of a message's */
    bool overflows;     /* the message does */
    size_t most;        /* bytes of a message */
    crew_buffer joined; /* what has come of it */
    /* Bytes that the context was given, and those of them that were whole frames. */
    uint64_t given, framed, frame;
    crew_buffer found; /* messages, each behind its head, from found_at on */
    size_t found_at;
    bool in_close;        /* the frame says goodbye, */
    crew_buffer farewell; /* as this has it: a code and a reason, as they came, or none */
    char why[200];        /* it was closed */
};

struct found_head {
    size_t size;
    bool text;
};

static struct ws *ws_of(const struct stream *s)
{
    return s->state;
}

/* ---- what wslay calls ---- */

static ssize_t on_recv(wslay_event_context_ptr context, uint8_t *room, size_t size, int flags, void *mine)
{
    struct stream *s = mine;
    struct ws *ws = s->state;
    crew_string bytes = stream_input(s);
    (void)flags;
    if (!bytes.size || ws->found.size || ws->overflows ||
        s->refused) { /* one message at a time, and what came with it */
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    size_t count = bytes.size < size ? bytes.size : size;
    memcpy(room, bytes.data, count);
    stream_skip(s, count);
    ws->given += count;
    ws->pinged = false;
    return (ssize_t)count;
}

static ssize_t on_send(wslay_event_context_ptr context, const uint8_t *bytes, size_t size, int flags,
                       void *mine)
{
    struct stream *s = mine;
    (void)context;
    (void)flags;
    crew_buffer_append(&s->output, bytes, size); /* within stream_output */
    return (ssize_t)size;
}

static int on_mask(wslay_event_context_ptr context, uint8_t *room, size_t size, void *mine)
{
    (void)mine;
    if (getrandom(room, size, 0) == (ssize_t)size)
        return 0;
    wslay_event_set_error(context, WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static void on_frame(wslay_event_context_ptr context, const struct wslay_event_on_frame_recv_start_arg *arg,
                     void *mine)
{
    struct stream *s = mine;
    struct ws *ws = s->state;
    uint64_t length = arg->payload_length;
    (void)context;
    ws->frame = length + (ws->client ? HEAD_LEAST : HEAD_LEAST + MASK_SIZE);
    ws->frame += length > UINT16_MAX ? 8 : length > 125 ? 2 : 0; /* no other way is let pass */
    ws->in_control = wslay_is_ctrl_frame(arg->opcode);
    ws->in_close = arg->opcode == WSLAY_CONNECTION_CLOSE;
    if (ws->in_control)
        return;
    ws->joins = !arg->fin;
    ws->overflows = ws->overflows || length > ws->most - ws->joined.size;
}

static void on_frame_end(wslay_event_context_ptr context, void *mine)
{
    struct stream *s = mine;
    (void)context;
    ws_of(s)->framed += ws_of(s)->frame;
}

static void on_message(wslay_event_context_ptr context, const struct wslay_event_on_msg_recv_arg *arg,
                       void *mine)
{
    struct stream *s = mine;
    struct ws *ws = s->state;
    struct found_head head = { ws->joined.size, arg->opcode == WSLAY_TEXT_FRAME };
    (void)context;
    if (arg->opcode != WSLAY_TEXT_FRAME && arg->opcode != WSLAY_BINARY_FRAME)
        return;
    size_t before = ws->found.size;
    crew_buffer_append(&ws->found, &head, sizeof head);
    crew_buffer_append(&ws->found, ws->joined.data, ws->joined.size);
    ws->found.failed = ws->found.failed || ws->joined.failed;
    if (ws->found.failed) /* half of one is none */
        ws->found.size = before;
    crew_buffer_fini(&ws->joined);
}

/* Fragments are joined here, since wslay would take a piece of memory for each. */
static void on_chunk(wslay_event_context_ptr context, const struct wslay_event_on_frame_recv_chunk_arg *arg,
                     void *mine)
{
    struct stream *s = mine;
    (void)context;
    if (ws_of(s)->in_close)
        crew_buffer_append(&ws_of(s)->farewell, arg->data, arg->data_length);
    else if (!ws_of(s)->in_control)
        crew_buffer_append(&ws_of(s)->joined, arg->data, arg->data_length);
}

static const struct wslay_event_callbacks callbacks = { .recv_callback = on_recv,
                                                        .send_callback = on_send,
                                                        .genmask_callback = on_mask,
                                                        .on_frame_recv_start_callback = on_frame,
                                                        .on_frame_recv_chunk_callback = on_chunk,
                                                        .on_frame_recv_end_callback = on_frame_end,
                                                        .on_msg_recv_callback = on_message };

/* ---- life ---- */

static bool has_context(struct stream *s)
{
    struct ws *ws = s->state;
    if (ws->context)
        return true;
    int error = ws->client ? wslay_event_context_client_init(&ws->context, &callbacks, s)
                           : wslay_event_context_server_init(&ws->context, &callbacks, s);
    if (error) {
        ws->context = NULL;
        return false;
    }
    wslay_event_config_set_no_buffering(ws->context, 1);
    wslay_event_config_set_max_recv_msg_length(ws->context, ws->most); /* of a frame, then */
    return true;
}

static void drop_context(struct ws *ws)
{
    if (ws->context)
        wslay_event_context_free(ws->context);
    ws->context = NULL;
    ws->given = ws->framed = 0;
}

static void end(struct stream *s)
{
    struct ws *ws = s->state;
    if (!ws)
        return;
    drop_context(ws);
    crew_buffer_fini(&ws->joined);
    crew_buffer_fini(&ws->found);
    crew_buffer_fini(&ws->farewell);
    free(ws);
    s->state = NULL;
}

crew_status ws_begin(struct stream *s, bool client)
{
    struct ws *ws = calloc(1, sizeof *ws);
    if (!ws)
        return CREW_NO_MEMORY;
    ws->client = client;
    ws->most = client ? s->set->config->hard_bytes : s->set->config->limits.message_bytes;
    s->partial = false;
    s->session = &stream_ws;
    if (s->peer)
        s->peer->takes_calls = true;
    s->state = ws;
    return CREW_OK;
}

/* ---- writing ---- */

/* What wslay has to say. */
static bool let_it_speak(struct stream *s)
{
    struct ws *ws = s->state;
    if (!ws->context || ws->closed || !wslay_event_want_write(ws->context))
        return true;
    (void)stream_output(s);
    bool good = wslay_event_send(ws->context) == 0;
    ws->closed = ws->closed || wslay_event_get_close_sent(ws->context);
    return stream_queued(s) == CREW_OK && good;
}

static bool say(struct stream *s, const struct wslay_event_msg *message)
{
    return has_context(s) && wslay_event_queue_msg(ws_of(s)->context, message) == 0 && let_it_speak(s);
}

/* A worker's frame. */
static void write_frame(uint8_t opcode, crew_string body, crew_buffer *out)
{
    uint8_t head[10] = { (uint8_t)(0x80 | opcode) };
    size_t lengths = body.size > UINT16_MAX ? 8 : body.size > 125 ? 2 : 0;
    head[1] = lengths == 8 ? 127 : lengths == 2 ? 126 : (uint8_t)body.size;
    for (size_t i = 0; i < lengths; i++)
        head[2 + i] = (uint8_t)((uint64_t)body.size >> 8 * (lengths - 1 - i));
    crew_buffer_append(out, head, 2 + lengths);
    crew_buffer_append(out, body.data, body.size);
}

static crew_status put(struct stream *s, const char *content_type, crew_string body)
{
    struct ws *ws = s->state;
    uint8_t opcode =
        content_type && strcmp(content_type, msgpack) == 0 ? WSLAY_BINARY_FRAME : WSLAY_TEXT_FRAME;
    if (ws->closed)
        return CREW_DISCONNECTED;
    if (ws->client) {
        const struct wslay_event_msg message = { opcode, (const uint8_t *)body.data, body.size };
        return say(s, &message) ? CREW_OK : CREW_NO_MEMORY;
    }
    write_frame(opcode, body, stream_output(s));
    return stream_queued(s);
}

static crew_status answer(struct stream *s, crew_message *m, crew_list *done)
{
    bool has_answer = m->kind == CREW_SETTLE_REPLY;
    crew_status status = has_answer ? put(s, m->content_type, crew_buffer_string(&m->reply)) : CREW_OK;
    m->number = has_answer ? s->queued_bytes : 0;
    if (status == CREW_OK)
        crew_list_append(done, m);
    return status;
}

static void say_close(struct stream *s, uint16_t code)
{
    struct ws *ws = s->state;
    const char bytes[] = { (char)(code >> 8), (char)code };
    const struct wslay_event_msg message = { WSLAY_CONNECTION_CLOSE, (const uint8_t *)bytes, sizeof bytes };
    if (!ws->closed && ws->client) {
        (void)say(s, &message);
    } else if (!ws->closed) {
        write_frame(WSLAY_CONNECTION_CLOSE, (crew_string){ bytes, sizeof bytes }, stream_output(s));
        (void)!stream_queued(s);
    }
    ws->closed = true;
}

static void leave(struct stream *s)
{
    say_close(s, WSLAY_CODE_GOING_AWAY);
}

/* Asks whether somebody is there; false: that was asked before. */
static bool stays(struct stream *s)
{
    struct ws *ws = s->state;
    const struct wslay_event_msg ping = { .opcode = WSLAY_PING };
    if (ws->pinged || ws->closed) {
        say_close(s, WSLAY_CODE_GOING_AWAY);
        return false;
    }
    ws->pinged = true;
    return say(s, &ping);
}

/* ---- reading ---- */

/* Nothing more comes that we want, or can go. */
static void part(struct stream *s)
{
    ws_of(s)->closed = true;
    stream_refuse(s);
    if (s->peer)
        crew_transport_gone(s->set->config, s->peer);
}

/* Why it was closed: the other end's words, also where wslay knows no such code (1012 to 1014), or ours. */
static void say_why(struct ws *ws, int error)
{
    enum { CODE_SIZE = 2 };
    crew_string words = crew_buffer_string(&ws->farewell);
    if (words.size >= CODE_SIZE) {
        const unsigned char *code = (const unsigned char *)words.data;
        words = (crew_string){ words.data + CODE_SIZE, words.size - CODE_SIZE };
        if (!crew_utf8_valid(words))
            words.size = 0;
        (void)snprintf(ws->why, sizeof ws->why, "the other end closed WebSocket with %u%s%.*s",
                       (unsigned)code[0] << 8 | code[1], words.size ? ": " : "", CREW_STR(words));
        return;
    }
    (void)snprintf(ws->why, sizeof ws->why, "%s",
                   ws->in_close    ? "the other end closed WebSocket"
                   : ws->overflows ? "a message of WebSocket that is too large"
                   : error         ? "what came is not by WebSocket's rules"
                                   : "WebSocket was closed");
}

static void read_frames(struct stream *s)
{
    struct ws *ws = s->state;
    bool good = has_context(s);
    int error = good ? wslay_event_recv(ws->context) : WSLAY_ERR_NOMEM;
    if (ws->found.failed || ws->joined.failed)
        error = WSLAY_ERR_NOMEM;
    if (ws->overflows) {
        say_close(s, WSLAY_CODE_MESSAGE_TOO_BIG);
        good = false;
    }
    if (error) /* of which wslay says no code to the other end */
        say_close(s, error == WSLAY_ERR_NOMEM ? WSLAY_CODE_INTERNAL_SERVER_ERROR : WSLAY_CODE_PROTOCOL_ERROR);
    good = good && !error;
    if (!let_it_speak(s) || !good || !wslay_event_want_read(ws->context)) {
        say_why(ws, error);
        s->why = ws->why;
        if (!ws->found.size)
            part(s);
        return;
    }
    s->partial = ws->given > ws->framed || ws->joins;
    if (!s->partial && !ws->client)
        drop_context(ws);
}

static enum stream_found find(struct stream *s, struct stream_span *span)
{
    struct ws *ws = s->state;
    if (!ws->found.size && s->ended && s->refused && s->partial && !ws->closed && ws->context) {
        (void)wslay_event_queue_close(ws->context, WSLAY_CODE_POLICY_VIOLATION, NULL,
                                      0); /* it took too long */
        (void)let_it_speak(s);
        part(s);
    }
    if (!ws->found.size && stream_has_input(s) && !ws->closed)
        read_frames(s);
    stream_keep(s, ws->found.size - ws->found_at + ws->joined.size);
    if (!ws->found.size) {
        if (ws->closed && !s->ended)
            part(s);
        return STREAM_MORE;
    }
    struct found_head head;
    memcpy(&head, ws->found.data + ws->found_at, sizeof head);
    *span = (struct stream_span){ .size = head.size };
    return STREAM_MESSAGE;
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    struct ws *ws = s->state;
    struct found_head head;
    memcpy(&head, ws->found.data + ws->found_at, sizeof head);
    crew_buffer_append(&m->body, ws->found.data + ws->found_at + sizeof head, span->size);
    m->content_type = head.text ? json : msgpack;
    ws->found_at += sizeof head + span->size;
    if (ws->found_at == ws->found.size) {
        crew_buffer_fini(&ws->found);
        ws->found_at = 0;
    }
    return CREW_OK;
}

const struct stream_session stream_ws = {
    .find = find, .take = take, .put = put, .answer = answer, .leave = leave, .stays = stays, .end = end
};

/* ---- the handshake ---- */

static void write_base64(const void *bytes, size_t size, char *out, size_t room)
{
    crew_buffer text = { 0 };
    crew_base64_encode((crew_string){ bytes, size }, &text);
    (void)snprintf(out, room, "%.*s", (int)text.size, text.data ? text.data : "");
    crew_buffer_fini(&text);
}

bool ws_make_key(char key[WS_KEY_SIZE + 1])
{
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return false;
    write_base64(random, sizeof random, key, WS_KEY_SIZE + 1);
    return true;
}

void ws_accept_key(const char *key, char accept[WS_ACCEPT_SIZE + 1])
{
    char text[WS_KEY_SIZE + 40];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    int length = snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    *accept = '\0';
    if (EVP_Digest(text, (size_t)length, digest, &size, EVP_sha1(), NULL) == 1)
        write_base64(digest, size, accept, WS_ACCEPT_SIZE + 1);
}

/* The first one offered that we know, or else the first: some clients fail when none is chosen. */
static crew_string choose_subprotocol(const char *offered)
{
    static const char *const known[] = { "jsonrpc", "jsonrpc2.0", "jsonrpc-2.0", "json-rpc", "msgpack-rpc" };
    crew_string first = { 0 };
    for (const char *at = offered; at && *at;) {
        at += strspn(at, ", \t");
        crew_string one = { at, strcspn(at, ", \t") };
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (crew_string_equal(one, crew_str(known[i])))
                return one;
        if (!first.size)
            first = one;
        at += one.size;
    }
    return first;
}

enum stream_found ws_accept(struct stream *s, const struct http_message *request,
                            void (*end_http)(struct stream *s))
{
    char accept[WS_ACCEPT_SIZE + 1];
    crew_string chosen = choose_subprotocol(http_field(request, "sec-websocket-protocol"));
    ws_accept_key(http_field(request, "sec-websocket-key"), accept);
    crew_buffer *out = stream_output(s);
    crew_buffer_printf(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nRpcrew: 1\r\n"
        "Sec-WebSocket-Accept: %s\r\n",
        accept);
    if (chosen.size)
        crew_buffer_printf(out, "Sec-WebSocket-Protocol: %.*s\r\n", CREW_STR(chosen));
    crew_buffer_text(out, "\r\n");
    crew_status status = stream_queued(s);
    end_http(s);
    stream_keep(s, 0);
    if (status != CREW_OK || ws_begin(s, false) != CREW_OK)
        stream_refuse(s);
    return STREAM_SKIPPED;
}
