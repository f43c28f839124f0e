/* cgi:// and fcgi://host:port, fcgi+unix:///path: a worker behind another HTTP server, which starts it for
 * each request (RFC 3875), or keeps it (FastCGI). */
#include "transport/cgi_request.h"
#include "transport/fcgi_session.h"
#include "transport/http_reply.h"
#include "transport/listen.h"
#include "transport/stdio.h"
#include "transport/transports.h"

#include <stdlib.h>

struct worker {
    struct stream_worker streams; /* first: its operations are the worker's */
    struct http_shared shared;
};

static void set_up(struct worker *w, const crew_transport_config *config,
                   const struct stream_session *session)
{
    w->shared = (struct http_shared){ .behind = true };
    http_rules_read(&w->shared.rules, config->url, config->limits.message_bytes);
    w->shared.rules.anywhere = true;
    w->streams.set.shared = &w->shared;
    w->streams.set.session = session;
}

/* ---- CGI: one request, by the environment and standard input ---- */

struct request {
    struct http_message in;
    struct http_verdict verdict;
    struct http_asker asker;
    bool read, taken;
};

static struct http_shared *shared_of(const struct stream *s)
{
    return s->set->shared;
}

static struct request *request_of(struct stream *s)
{
    if (!s->state)
        s->state = calloc(1, sizeof(struct request));
    return s->state;
}

static void end(struct stream *s)
{
    struct request *r = s->state;
    if (!r)
        return;
    http_asker_fini(&r->asker);
    http_end(&r->in);
    free(r);
    s->state = NULL;
}

/* The environment's variables, each with NULs behind name and value. */
static void spread(crew_buffer *out)
{
    extern char **environ;
    for (char **one = environ; *one; one++) {
        const char *equals = strchr(*one, '=');
        if (!equals)
            continue;
        crew_buffer_append(out, *one, (size_t)(equals - *one));
        crew_buffer_append(out, "", 1);
        crew_buffer_append(out, equals + 1, strlen(equals + 1) + 1);
    }
}

static void read_request(struct stream *s, struct request *r)
{
    crew_buffer variables = { 0 };
    spread(&variables);
    r->read = true;
    http_begin(&r->in, HTTP_REQUEST, 0, shared_of(s)->rules.body_most);
    if (cgi_read_request(&r->in, crew_buffer_string(&variables)) && !variables.failed)
        http_judge(&shared_of(s)->rules, &r->in, &r->verdict);
    else
        r->verdict = (struct http_verdict){ .wish = HTTP_REFUSED,
                                            .status = r->in.why ? r->in.status : 500,
                                            .words = r->in.why ? r->in.why : "no memory" };
    if (r->verdict.wish == HTTP_UPGRADES)
        r->verdict = (struct http_verdict){ .wish = HTTP_REFUSED,
                                            .status = 426,
                                            .words = "WebSocket is not handed on" };
    crew_buffer_fini(&variables);
}

static enum stream_found answer_here(struct stream *s, struct request *r)
{
    r->taken = true;
    if (http_ask(&r->asker, &r->in, &r->verdict))
        http_write_own(shared_of(s), &r->asker, &r->verdict, stream_output(s));
    (void)!stream_queued(s);
    stream_refuse(s);
    return STREAM_SKIPPED;
}

static enum stream_found refuse(struct stream *s, struct request *r, unsigned status, const char *words)
{
    r->verdict = (struct http_verdict){ .wish = HTTP_REFUSED, .status = status, .words = words };
    return answer_here(s, r);
}

static enum stream_found find(struct stream *s, struct stream_span *span)
{
    struct request *r = request_of(s);
    if (!r || r->taken) {
        stream_refuse(s);
        return STREAM_MORE;
    }
    if (!r->read)
        read_request(s, r);
    if (r->verdict.wish != HTTP_CALLS && r->verdict.wish != HTTP_DISCOVERS)
        return answer_here(s, r);
    crew_string bytes = stream_input(s);
    size_t size = bytes.size, body_most = shared_of(s)->rules.body_most;
    bool is_over = s->ended && r->in.chunked; /* that is where such a body ends */
    if (!r->in.chunked) {
        size_t length = r->in.length == UINT64_MAX ? 0 : (size_t)r->in.length; /* else there is no body */
        size_t missing = length - r->in.body.size;
        is_over = size >= missing;
        size = is_over ? missing : size;
    }
    if (size > body_most - r->in.body.size)
        return refuse(s, r, 413, "a body that is too large");
    crew_buffer_append(&r->in.body, bytes.data, size);
    stream_skip(s, size);
    stream_keep(s, r->in.body.size);
    s->partial = !is_over;
    if (s->ended && (s->partial || s->refused))
        return refuse(s, r, s->refused ? 408 : 400, "a body that ends in the middle");
    *span = (struct stream_span){ .size = r->in.body.size };
    return s->partial ? STREAM_MORE : STREAM_MESSAGE;
}

static crew_status take(struct stream *s, const struct stream_span *span, crew_message *m)
{
    struct request *r = s->state;
    const char *user = getenv("REMOTE_USER"), *address = getenv("REMOTE_ADDR");
    (void)span;
    r->taken = true;
    if (user && *user) /* whom the server in front has let in */
        s->peer->name = strdup(user);
    if (address && *address)
        s->peer->address = strdup(address);
    if (r->in.body.failed || !http_ask(&r->asker, &r->in, &r->verdict))
        return CREW_NO_MEMORY;
    crew_status status = http_give(&r->asker, &r->verdict, &r->in, m);
    stream_keep(s, 0);
    stream_refuse(s);
    return status;
}

static crew_status answer(struct stream *s, crew_message *m, crew_list *done)
{
    const struct request *r = s->state;
    http_write_answer(shared_of(s), &r->asker, m, stream_output(s));
    crew_status status = stream_queued(s);
    m->number = s->queued_bytes;
    if (status == CREW_OK)
        crew_list_append(done, m);
    return status;
}

static const struct stream_session stream_cgi = { .find = find, .take = take, .answer = answer, .end = end };

static crew_status cgi_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    if (!getenv("REQUEST_METHOD"))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "URL '%s': no HTTP server has started this program: there is no REQUEST_METHOD",
                              crew_url_text(config->url));
    crew_status status = stdio_worker_open(w, config, why);
    if (status == CREW_OK) {
        struct stream *s = w->streams.set.streams; /* which is there already */
        set_up(w, config, &stream_cgi);
        s->session = &stream_cgi;
        stream_wants_a_turn(s); /* there may be nothing to read */
    }
    return status;
}

static void cgi_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    stdio_worker_close(w, linger_ms, unsent);
    http_shared_fini(&w->shared);
}

/* ---- FastCGI ---- */

static bool is_unix(const crew_url *url)
{
    return strcmp(crew_url_scheme(url), "fcgi+unix") == 0;
}

static void fcgi_close(void *state, unsigned linger_ms, crew_list *unsent)
{
    struct worker *w = state;
    stream_worker_close(w, linger_ms, unsent);
    http_shared_fini(&w->shared);
}

static crew_status fcgi_open(void *state, const crew_transport_config *config, crew_error *why)
{
    struct worker *w = state;
    crew_status status = stream_worker_open(&w->streams, config, why);
    set_up(w, config, &stream_fcgi);
    if (status != CREW_OK)
        return status;
    if (listen_inherits(config->url))
        status = listen_inherited(&w->streams, why);
    else
        status = is_unix(config->url) ? listen_unix(&w->streams, why) : listen_tcp(&w->streams, why);
    if (status != CREW_OK)
        fcgi_close(w, 0, NULL);
    return status;
}

/* ---- the tables ---- */

static crew_status no_caller(const crew_url *url, crew_error *why)
{
    return crew_error_set(why, CREW_UNSUPPORTED,
                          "URL '%s': a caller calls the server in front of it: http://…", crew_url_text(url));
}

static crew_status cgi_check(const crew_url *url, bool server, crew_error *why)
{
    if (!server)
        return no_caller(url, why);
    if (*crew_url_host(url, 0) || *crew_url_path(url))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': cgi:// wants no host and no path",
                              crew_url_text(url));
    return CREW_OK;
}

static crew_status fcgi_check(const crew_url *url, bool server, crew_error *why)
{
    char path[PATH_MOST];
    if (!server)
        return no_caller(url, why);
    if (listen_inherits(url))
        return CREW_OK;
    if (is_unix(url))
        return path_of_url(url, path, why);
    if (crew_url_host_count(url) != 1 || !*crew_url_host(url, 0) || !crew_url_port(url, 0) ||
        (*crew_url_path(url) && strcmp(crew_url_path(url), "/") != 0))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': wants host:port, without a path",
                              crew_url_text(url));
    return CREW_OK;
}

static const crew_url_option_spec options[] = {
    STREAM_WORKER_OPTIONS,
    HTTP_RULES_OPTIONS,
    LISTEN_OPTIONS,
    { "mode", NULL, 0, 0, "worker: who may connect, as three octal digits; else by the umask" },
    { NULL, NULL, 0, 0, NULL },
};

static const struct crew_transport_ops cgi_ops = STREAM_WORKER_OPS(struct worker, cgi_open, cgi_close);
static const struct crew_transport_ops fcgi_ops = STREAM_WORKER_OPS(struct worker, fcgi_open, fcgi_close);

const crew_transport crew_cgi = {
    .scheme = "cgi", .options = options, .carries_types = true, .check = cgi_check, .server = &cgi_ops
};
const crew_transport crew_fcgi = {
    .scheme = "fcgi", .options = options, .carries_types = true, .check = fcgi_check, .server = &fcgi_ops
};
const crew_transport crew_fcgi_unix = {
    .scheme = "fcgi+unix", .options = options, .carries_types = true, .check = fcgi_check, .server = &fcgi_ops
};
