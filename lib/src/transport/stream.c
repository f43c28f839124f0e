#include "transport/stream.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    EVENTS = 64,
    HEARD_TICK_MS = 1000,
    DISCARDS_MOST = 64,
    COMPACT_BYTES = 64 << 10 /* taken or written, before what is behind is moved to the front */
};

/* ---- the set ---- */

crew_status stream_set_open(struct stream_set *set, const crew_transport_config *config, crew_error *why)
{
    *set = (struct stream_set){
        .config = config, .session = &stream_plain, .wake_fd = -1, .epoll = epoll_create1(EPOLL_CLOEXEC)
    };
    set->round_end = &set->round;
    if (set->epoll < 0)
        return crew_error_set(why, CREW_SYSTEM, "epoll: %s", strerror(errno));
    set->room = malloc(STREAM_READ_BYTES);
    if (set->room)
        return CREW_OK;
    stream_set_close(set);
    return crew_error_set(why, CREW_NO_MEMORY, "no memory");
}

void stream_set_close(struct stream_set *set)
{
    if (set->epoll >= 0)
        close(set->epoll);
    set->epoll = -1;
    free(set->room);
    set->room = NULL;
    crew_buffer_fini(&set->spare);
    tls_context_free(set->tls);
    set->tls = NULL;
}

crew_status stream_set_watch(struct stream_set *set, int fd, struct stream_source *source, crew_error *why)
{
    struct epoll_event event = { .events = EPOLLIN, .data = { .ptr = source } };
    if (epoll_ctl(set->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return CREW_OK;
    return crew_error_set(why, CREW_SYSTEM, "epoll: %s", strerror(errno));
}

void stream_set_unwatch(struct stream_set *set, int fd)
{
    (void)epoll_ctl(set->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static void note(struct stream_source *source, uint32_t events)
{
    struct stream *s = source->stream;
    if (!s) {
        source->ready = true;
        return;
    }
    bool hangs_up = events & (EPOLLERR | EPOLLHUP);
    bool is_input = !source->is_output, is_output = source->is_output || s->in == s->out;
    if (s->tls) /* which may read in order to write, and write in order to read */
        s->readable = s->writable = true;
    s->gone = s->gone || (is_output && hangs_up);
    s->writable = s->writable || (is_output && (hangs_up || events & EPOLLOUT));
    s->readable = s->readable || (is_input && (hangs_up || events & (EPOLLIN | EPOLLRDHUP)));
    s->hangs_up = s->hangs_up || hangs_up || events & EPOLLRDHUP;
    stream_wants_a_turn(s);
}

/* The owner's descriptor is the same from open to close (rule 12). */
static crew_status watch_owner(struct stream_set *set, int wake_fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data = { .ptr = NULL } };
    if (set->wake_fd == wake_fd)
        return CREW_OK;
    set->wake_fd = wake_fd;
    return epoll_ctl(set->epoll, EPOLL_CTL_ADD, wake_fd, &event) == 0 ? CREW_OK : CREW_SYSTEM;
}

crew_status stream_set_wait(struct stream_set *set, int wake_fd, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    crew_status status = watch_owner(set, wake_fd);
    if (status != CREW_OK)
        return status;
    if (set->tick_at_ms) {
        int64_t left = set->tick_at_ms - crew_now_ms();
        timeout_ms = crew_sooner(timeout_ms, left > 0 ? (int)left : 0);
    }
    int count = epoll_wait(set->epoll, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR)
        return CREW_SYSTEM;
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            note(events[i].data.ptr, events[i].events);
    return CREW_OK;
}

void stream_wants_a_turn(struct stream *s)
{
    if (s->in_round)
        return;
    s->in_round = true;
    s->next_round = NULL;
    *s->set->round_end = s;
    s->set->round_end = &s->next_round;
    s->set->round_count++;
}

static void leave_round(struct stream *s)
{
    struct stream **at = &s->set->round;
    while (s->in_round && *at != s)
        at = &(*at)->next_round;
    if (!s->in_round)
        return;
    *at = s->next_round;
    if (!*at)
        s->set->round_end = at;
    s->in_round = false;
    s->set->round_count--;
}

struct stream *stream_set_turn(struct stream_set *set)
{
    struct stream *s = set->round;
    if (s)
        leave_round(s);
    return s;
}

static void want_tick_within(struct stream_set *set, unsigned ms)
{
    int64_t at = crew_now_ms() + ms;
    if (!set->tick_at_ms || at < set->tick_at_ms)
        set->tick_at_ms = at;
}

static void want_tick(struct stream_set *set)
{
    want_tick_within(set, STREAM_TICK_MS);
}

/* Idle ones are looked at a few times in their time: a thousand of them then cost nothing. */
static void want_idle_tick(struct stream_set *set)
{
    if (set->idle_ms && set->streams)
        want_tick_within(set, set->idle_ms / 4 + 1);
}

bool stream_set_ticks(struct stream_set *set)
{
    if (!set->tick_at_ms || crew_now_ms() < set->tick_at_ms)
        return false;
    set->tick_at_ms = 0;
    want_idle_tick(set);
    bool wanted = false;
    for (const struct stream *s = set->streams; s && !wanted; s = s->next) {
        wanted = s->begun_at_ms || s->stuck_at_ms || s->closing;
        if (wanted)
            want_tick(set);
        else if (s->unconfirmed)
            want_tick_within(set, HEARD_TICK_MS);
    }
    return true;
}

/* ---- life ---- */

static int watch(struct stream *s, int fd, uint32_t events, struct stream_source *source)
{
    struct epoll_event event = { .events = events | EPOLLET, .data = { .ptr = source } };
    if (epoll_ctl(s->set->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    if (errno != EPERM) /* a file, which is always ready */
        return errno;
    s->readable = s->readable || !source->is_output;
    stream_wants_a_turn(s);
    return 0;
}

static bool is_local(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* Whether epoll is to tell when a local socket has room; it tells at once if it has by now. */
static void watch_room(struct stream *s, bool wanted)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET | (wanted ? EPOLLOUT : 0),
                                 .data = { .ptr = &s->input_source } };
    if (!s->is_local || s->watches_room == wanted)
        return;
    s->watches_room = wanted;
    (void)epoll_ctl(s->set->epoll, EPOLL_CTL_MOD, s->in, &event);
}

struct stream *stream_new(struct stream_set *set, int in, int out, crew_error *why)
{
    struct stream *s = calloc(1, sizeof *s);
    int error = s ? 0 : ENOMEM;
    if (s) {
        struct stat file;
        *s = (struct stream){ .set = set, .session = set->session, .in = in, .out = out, .writable = true };
        s->input_source = (struct stream_source){ .stream = s };
        s->output_source = (struct stream_source){ .stream = s, .is_output = true };
        s->in_is_socket = fstat(in, &file) == 0 && S_ISSOCK(file.st_mode);
        s->out_is_socket = fstat(out, &file) == 0 && S_ISSOCK(file.st_mode);
        s->framing.kind = s->writes = stream_framing_kind(set->config->url);
        s->is_local = in == out && s->in_is_socket && is_local(in);
        error =
            watch(s, in, EPOLLIN | EPOLLRDHUP | (in == out && !s->is_local ? EPOLLOUT : 0), &s->input_source);
        if (!error && in != out)
            error = watch(s, out, EPOLLOUT, &s->output_source);
    }
    if (error) {
        crew_error_set(why, error == ENOMEM ? CREW_NO_MEMORY : CREW_SYSTEM, "%s", strerror(error));
        if (s)
            leave_round(s);
        free(s);
        if (in != out)
            close(out);
        close(in);
        return NULL;
    }
    s->number = ++set->last_number;
    s->next = set->streams;
    s->at = &set->streams;
    if (s->next)
        s->next->at = &s->next;
    set->streams = s;
    set->count++;
    s->used_at_ms = crew_now_ms();
    want_idle_tick(set);
    return s;
}

static void forget_input(struct stream *s)
{
    s->set->input_bytes -= s->input.size;
    crew_buffer_fini(&s->input);
    s->taken = 0;
}

void stream_free(struct stream *s)
{
    struct stream_set *set = s->set;
    leave_round(s);
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
    set->count--;
    if (s->session->end)
        s->session->end(s);
    stream_keep(s, 0);
    stream_keep_answers(s, 0);
    forget_input(s);
    set->output_bytes -= stream_unwritten(s);
    crew_buffer_fini(&s->output);
    tls_free(s->tls);
    /* Another process may have them too, so that closing them alone would leave them watched. */
    stream_set_unwatch(set, s->in);
    if (s->in != s->out) {
        stream_set_unwatch(set, s->out);
        close(s->out);
    }
    close(s->in);
    free(s);
}

/* ---- reading ---- */

static ssize_t read_bytes(struct stream *s, char *room, size_t size)
{
    ssize_t count;
    if (s->tls)
        return tls_read(s->tls, room, size);
    do
        count = s->in_is_socket ? recv(s->in, room, size, MSG_DONTWAIT) : read(s->in, room, size);
    while (count < 0 && errno == EINTR);
    return count;
}

/* Moves what was not taken to the front, when that pays. */
static void compact(struct stream *s)
{
    size_t left = s->input.size - s->taken;
    if (!left) {
        forget_input(s);
    } else if (s->taken >= COMPACT_BYTES || s->taken > left) {
        memmove(s->input.data, s->input.data + s->taken, left);
        s->set->input_bytes -= s->taken;
        s->input.size = left;
        s->taken = 0;
    }
}

bool stream_read(struct stream *s, size_t most)
{
    if (!s->readable || s->ended)
        return false;
    compact(s);
    size_t want = STREAM_READ_BYTES;
    if (s->input.size > want)
        want = s->input.size; /* so that a large message is copied a few times, not often */
    char *into = s->input.size ? crew_buffer_room(&s->input, want) : s->set->room;
    if (!into) { /* without memory */
        s->error = ENOMEM;
        s->ended = true;
        return false;
    }
    if (!s->input.size)
        want = STREAM_READ_BYTES;
    if (want > most)
        want = most;
    ssize_t count = read_bytes(s, into, want);
    if (count <= 0) {
        s->readable = false;
        s->ended = count == 0 || errno != EAGAIN;
        s->error = count < 0 && errno != EAGAIN ? errno : 0;
        bool is_tls = s->tls && s->error == EPROTO; /* who speaks none may read that */
        s->gone = s->gone || (s->error && !is_tls);
        s->refused = s->refused || is_tls;
        if (is_tls)
            s->why = tls_why(s->tls);
        return false;
    }
    if (into == s->set->room)
        crew_buffer_append(&s->input, into, (size_t)count);
    else
        s->input.size += (size_t)count;
    if (s->input.failed) {
        s->error = ENOMEM;
        s->ended = true;
        return false;
    }
    s->set->input_bytes += (size_t)count;
    if (s->set->idle_ms)
        s->used_at_ms = crew_now_ms();
    if (s->in_is_socket && !s->tls && (size_t)count < want && !s->hangs_up)
        s->readable = false; /* it is empty, and epoll tells of what comes later */
    return true;
}

void stream_skip(struct stream *s, size_t bytes)
{
    s->taken += bytes;
    compact(s);
}

void stream_keep(struct stream *s, size_t bytes)
{
    s->set->input_bytes += bytes - s->kept;
    s->kept = bytes;
}

void stream_keep_answers(struct stream *s, size_t bytes)
{
    s->set->output_bytes += bytes - s->kept_answers;
    s->kept_answers = bytes;
}

void stream_begin(struct stream *s)
{
    s->begun_at_ms = crew_now_ms();
    want_tick(s->set);
}

enum stream_found stream_peek(struct stream *s, struct stream_span *span)
{
    if (s->found == STREAM_MORE) {
        s->found = s->session->find(s, &s->span);
        bool greets = s->tls && !tls_is_up(s->tls);
        if (s->found != STREAM_MORE || (!s->partial && !greets)) { /* it has come, and waits for room */
            s->begun_at_ms = 0;
        } else if (!s->begun_at_ms) {
            stream_begin(s);
        }
    }
    enum stream_found what = s->found;
    *span = s->span;
    if (what == STREAM_SKIPPED)
        s->found = STREAM_MORE;
    return what;
}

crew_status stream_take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    crew_status status = s->session->take(s, span, m);
    s->found = STREAM_MORE;
    return status == CREW_OK && m->body.failed ? CREW_NO_MEMORY : status;
}

void stream_refuse(struct stream *s)
{
    s->ended = s->refused = true;
    s->taken = s->input.size;
    s->found = STREAM_MORE;
}

/* ---- writing ---- */

crew_buffer *stream_output(struct stream *s)
{
    struct stream_set *set = s->set;
    if (!s->output.capacity) {
        s->output = set->spare;
        set->spare = (crew_buffer){ 0 };
    }
    s->output_before = s->output.size;
    return &s->output;
}

crew_status stream_queued(struct stream *s)
{
    if (s->output.failed) {
        s->output.failed = false;
        s->output.size = s->output_before;
        return CREW_NO_MEMORY;
    }
    s->queued_bytes += s->output.size - s->output_before;
    s->set->output_bytes += s->output.size - s->output_before;
    return CREW_OK;
}

crew_status stream_queue(struct stream *s, const char *content_type, crew_string body)
{
    return s->session->put(s, content_type, body);
}

static ssize_t write_bytes(struct stream *s, const char *bytes, size_t size)
{
    ssize_t count;
    if (s->tls)
        return tls_write(s->tls, bytes, size);
    do
        count = s->out_is_socket ? send(s->out, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                                 : write(s->out, bytes, size);
    while (count < 0 && errno == EINTR);
    return count;
}

static void output_is_empty(struct stream *s)
{
    s->written = 0;
    s->stuck_at_ms = 0;
    if (s->set->idle_ms)
        s->used_at_ms = crew_now_ms();
    crew_buffer_clear(&s->output);
    if (!s->set->spare.capacity)
        s->set->spare = s->output;
    else
        crew_buffer_fini(&s->output);
    s->output = (crew_buffer){ 0 };
}

static bool has_sealed(const struct stream *s)
{
    return s->tls && tls_sealed(s->tls);
}

void stream_flush(struct stream *s)
{
    bool progress = false;
    while (s->writable && (stream_unwritten(s) || has_sealed(s))) {
        size_t size = stream_unwritten(s);
        ssize_t count = write_bytes(s, size ? s->output.data + s->written : "", size);
        if (count < 0) {
            s->writable = false;
            if (errno == EAGAIN)
                break;
            s->gone = true;
            s->readable = s->readable || s->in == s->out; /* what came before that, and the end */
            if (!s->error)
                s->error = errno;
            break;
        }
        progress = true;
        if (!s->unconfirmed && s->out_is_socket && !s->is_local) {
            s->unconfirmed = true;
            want_tick_within(s->set, HEARD_TICK_MS);
        }
        s->written += (size_t)count;
        s->written_bytes += (uint64_t)count;
        s->set->output_bytes -= (size_t)count;
    }
    watch_room(s, !s->writable);
    if (!stream_unwritten(s) && !has_sealed(s)) {
        if (s->output.capacity)
            output_is_empty(s);
        s->stuck_at_ms = 0;
        return;
    }
    if (progress || !s->stuck_at_ms) {
        s->stuck_at_ms = crew_now_ms();
        want_tick(s->set);
    }
    if (s->written >= COMPACT_BYTES && s->written > s->output.size / 2) {
        memmove(s->output.data, s->output.data + s->written, stream_unwritten(s));
        s->output.size -= s->written;
        s->written = 0;
    }
}

void stream_unqueue(struct stream *s, uint64_t queued_bytes)
{
    size_t back = (size_t)(s->queued_bytes - queued_bytes);
    s->output.size -= back;
    s->set->output_bytes -= back;
    s->queued_bytes = queued_bytes;
    if (!stream_unwritten(s) && s->output.capacity)
        output_is_empty(s);
}

void stream_shut(struct stream *s)
{
    s->closing = true;
    want_tick(s->set);
    if (s->tls && !s->gone)
        tls_shut(s->tls);
    if (s->out_is_socket)
        (void)shutdown(s->out, SHUT_WR);
}

void stream_discard(const struct stream *s)
{
    char nothing[4096];
    for (int i = 0; s->in_is_socket && i < DISCARDS_MOST; i++)
        if (recv(s->in, nothing, sizeof nothing, MSG_DONTWAIT) <= 0)
            return;
}

/* A connection that was reset confirms nothing any more, and its bytes still count as not confirmed. */
static bool is_reset(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_CLOSE;
}

int stream_unconfirmed(const struct stream *s)
{
    int bytes = 0;
    bool known = s->out_is_socket && ioctl(s->out, SIOCOUTQ, &bytes) == 0;
    return known && bytes && !is_reset(s->out) ? bytes : 0;
}

bool stream_is_unheard(struct stream *s, unsigned most_ms)
{
    enum { TRIES = 3 };
    struct tcp_info info;
    socklen_t size = sizeof info;
    int64_t now = crew_now_ms();
    if (s->unconfirmed && !stream_unconfirmed(s))
        s->unconfirmed = false;
    bool silent = s->unconfirmed && getsockopt(s->out, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
                  (info.tcpi_retransmits >= TRIES || info.tcpi_probes >= TRIES) &&
                  (!s->unheard_since_ms || info.tcpi_last_ack_recv >= now - s->unheard_since_ms);
    if (!silent)
        s->unheard_since_ms = 0;
    else if (!s->unheard_since_ms)
        s->unheard_since_ms = now;
    return silent && now - s->unheard_since_ms >= most_ms;
}

const char *stream_words(const struct stream *s, char words[200])
{
    const char *why = s->tls ? tls_why(s->tls) : NULL;
    (void)snprintf(words, 200, "%s",
                   why        ? why
                   : s->error ? strerror(s->error)
                              : "the other end closed the connection");
    return words;
}
