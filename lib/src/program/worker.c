/* crew_worker_main: flags, environment, signals and logs around a server. */
#include "service/table.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/log.h>
#include <rpcrew/server.h>
#include <rpcrew/url.h>
#include <rpcrew/worker.h>

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LISTEN_MOST = 64, LARGE_BYTES = 256 << 10 };

struct settings {
    const char *listen[LISTEN_MOST];
    size_t listen_count;
    char *listen_text; /* the environment's, cut up */
    crew_server_options server;
    crew_log_options log;
};

/* ---- settings ---- */

/* Every flag that has a value, once: name, what --help says of it, how it is read. */
static crew_status set_listen(struct settings *s, const char *value, crew_error *why);
static crew_status set_threads(struct settings *s, const char *value, crew_error *why);
static crew_status set_in_flight(struct settings *s, const char *value, crew_error *why);
static crew_status set_drain(struct settings *s, const char *value, crew_error *why);
static crew_status set_level(struct settings *s, const char *value, crew_error *why);
static crew_status set_format(struct settings *s, const char *value, crew_error *why);

static const struct flag {
    const char *name, *value, *help;
    crew_status (*set)(struct settings *s, const char *value, crew_error *why);
} flags[] = {
    { "listen", "URL", "an endpoint to serve; can be repeated", set_listen },
    { "threads", "N", "threads of the pool; 2 x cores, at least 4", set_threads },
    { "in-flight", "N", "requests taken and not yet answered, per endpoint; 64", set_in_flight },
    { "drain-ms", "N", "how long stopping may take; 10000", set_drain },
    { "log-level", "LEVEL", "off, error, warn, info (the default), debug", set_level },
    { "log-format", "FORMAT", "text (the default), logfmt, json", set_format },
};

enum { FLAGS = sizeof flags / sizeof *flags };

static crew_status read_number(const char *value, unsigned most, unsigned *number, crew_error *why)
{
    char *end, shown[200];
    errno = 0;
    unsigned long long parsed = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end || errno || parsed < 1 || parsed > most)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "'%s' is not a number from 1 to %u",
                              crew_redact(value, shown, sizeof shown), most);
    *number = (unsigned)parsed;
    return CREW_OK;
}

static crew_status set_listen(struct settings *s, const char *value, crew_error *why)
{
    if (s->listen_count == LISTEN_MOST)
        return crew_error_set(why, CREW_LIMIT, "more than %d endpoints", LISTEN_MOST);
    s->listen[s->listen_count++] = value;
    return CREW_OK;
}

static crew_status set_threads(struct settings *s, const char *value, crew_error *why)
{
    return read_number(value, 4096, &s->server.threads, why);
}

static crew_status set_in_flight(struct settings *s, const char *value, crew_error *why)
{
    return read_number(value, 1 << 20, &s->server.in_flight_max, why);
}

static crew_status set_drain(struct settings *s, const char *value, crew_error *why)
{
    return read_number(value, 24 * 3600 * 1000, &s->server.drain_ms, why);
}

static crew_status set_level(struct settings *s, const char *value, crew_error *why)
{
    return crew_log_level_parse(value, &s->log.level, why);
}

static crew_status set_format(struct settings *s, const char *value, crew_error *why)
{
    return crew_log_format_parse(value, &s->log.format, why);
}

/* RPCREW_IN_FLIGHT for in-flight. */
static const char *environment(const char *flag)
{
    char name[64];
    int size = snprintf(name, sizeof name, "RPCREW_%s", flag);
    for (int i = 0; i < size; i++)
        name[i] = (char)(name[i] == '-' ? '_' : toupper((unsigned char)name[i]));
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static crew_status read_environment(struct settings *s, crew_error *why)
{
    crew_error reason;
    for (int i = 1; i < FLAGS; i++) { /* all but listen */
        const char *value = environment(flags[i].name);
        if (value && flags[i].set(s, value, &reason) != CREW_OK)
            return crew_error_set(why, CREW_BAD_ARGUMENT, "environment, for --%s: %s", flags[i].name,
                                  reason.message);
    }
    const char *wait = environment("wait");
    if (wait && strcmp(wait, "0") != 0 && strcmp(wait, "1") != 0)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "environment, for --wait: '%s' is neither 0 nor 1",
                              wait);
    s->server.wait = wait && *wait == '1';
    return CREW_OK;
}

/* Only if the command line has no endpoint. */
static crew_status read_listen_environment(struct settings *s, crew_error *why)
{
    const char *value = environment("listen");
    if (s->listen_count || !value)
        return CREW_OK;
    s->listen_text = strdup(value);
    if (!s->listen_text)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    char *rest = NULL;
    for (char *url = strtok_r(s->listen_text, " ", &rest); url; url = strtok_r(NULL, " ", &rest)) {
        crew_status status = set_listen(s, url, why);
        if (status != CREW_OK)
            return status;
    }
    return CREW_OK;
}

static void print_help(const char *program, const crew_service *service)
{
    printf("usage: %s --listen URL [--listen URL...] [options]\n", program);
    if (service->doc)
        printf("\n%s\n", service->doc);
    printf("\noptions (and environment variables):\n");
    for (int i = 0; i < FLAGS; i++)
        printf("  --%-10s %-7s %s\n", flags[i].name, flags[i].value, flags[i].help);
    printf("  --wait               an endpoint that is not there yet is tried again\n"
           "  --help               shows this\n"
           "  --version            shows the service's version\n"
           "Each is also an environment variable, such as RPCREW_IN_FLIGHT, or RPCREW_WAIT=1; the command "
           "line wins.\n");
    printf("\nexit status: 0 stopped and drained, 1 could not start, 2 bad usage, 3 stopped with calls in "
           "flight\n");
    printf("\nmethods:\n");
    for (const crew_method *m = service->methods; m && m->name; m++)
        printf("  %s(%s)%s%s\n      %s\n", m->name, m->params ? m->params : "any...", m->result ? " -> " : "",
               m->result ? m->result : "", m->doc ? m->doc : "");
}

/* What the command line leaves to do. */
enum outcome { SERVE, FINISHED, WRONG };

/* The option that getopt did not like: a letter may stand in the middle of a word. */
static const char *wrong_option(const char *word, char *shown, size_t room)
{
    bool letter = optopt > ' ' && optopt < 127;
    (void)snprintf(shown, room, "-%c", optopt);
    return letter && strncmp(word, "--", 2) != 0 ? shown : crew_redact(word, shown, room);
}

static enum outcome read_flags(struct settings *s, int argc, char **argv, const crew_service *service)
{
    struct option options[FLAGS + 4] = { { 0 } };
    for (int i = 0; i < FLAGS; i++)
        options[i] = (struct option){ .name = flags[i].name, .has_arg = required_argument, .val = 256 + i };
    options[FLAGS] = (struct option){ .name = "wait", .val = 'w' };
    options[FLAGS + 1] = (struct option){ .name = "help", .val = 'h' };
    options[FLAGS + 2] = (struct option){ .name = "version", .val = 'v' };

    crew_error why;
    char shown[200];
    optind = 0; /* from the start, also the second time */
    opterr = 0; /* it would show what should not be seen */
    for (int chosen; (chosen = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        if (chosen == 'w') {
            s->server.wait = true;
        } else if (chosen == 'h') {
            print_help(argv[0], service);
            return FINISHED;
        } else if (chosen == 'v') {
            printf("%s %s\n", service->name, service->version ? service->version : "0");
            return FINISHED;
        } else if (chosen < 256) {
            fprintf(stderr, "%s: '%s' %s\n", argv[0], wrong_option(argv[optind - 1], shown, sizeof shown),
                    chosen == ':' ? "requires an argument" : "is not an option");
            return WRONG;
        } else if (flags[chosen - 256].set(s, optarg, &why) != CREW_OK) {
            fprintf(stderr, "%s: --%s: %s\n", argv[0], flags[chosen - 256].name, why.message);
            return WRONG;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: '%s' is not an option\n", argv[0],
                crew_redact(argv[optind], shown, sizeof shown));
        return WRONG;
    }
    return SERVE;
}

static enum outcome read_settings(struct settings *s, int argc, char **argv, const crew_service *service)
{
    crew_error why;
    /* The flags twice: --help comes before what the environment may have wrong, the others after it. */
    struct settings unused = { .listen_count = 0 };
    enum outcome outcome = read_flags(&unused, argc, argv, service);
    if (outcome == FINISHED)
        return outcome;
    crew_status status = CREW_OK;
    s->log.level = CREW_LOG_INFO;
    if (outcome == SERVE)
        status = read_environment(s, &why);
    if (outcome == SERVE && status == CREW_OK)
        outcome = read_flags(s, argc, argv, service);
    if (outcome == SERVE && status == CREW_OK)
        status = read_listen_environment(s, &why);
    if (status == CREW_OK && outcome == SERVE && !s->listen_count)
        status =
            crew_error_set(&why, CREW_BAD_ARGUMENT, "wants --listen URL, such as --listen zmq+tcp://*:5555");
    if (status != CREW_OK)
        fprintf(stderr, "%s: %s\n", argv[0], why.message);
    if (status != CREW_OK || outcome == WRONG)
        fprintf(stderr, "%s --help shows how\n", argv[0]);
    return status == CREW_OK ? outcome : WRONG;
}

/* ---- serving ---- */

static _Atomic(crew_server *) stoppable;

/* A process group and its parent may both pass on what was meant once. */
enum { SAME_SIGNAL_MS = 100 };

static void on_signal(int number)
{
    static _Atomic(int64_t) first_ms;
    int64_t now = crew_now_ms(), first = 0;
    (void)number;
    crew_server *server = atomic_load(&stoppable);
    if (!server || (!atomic_compare_exchange_strong(&first_ms, &first, now) && now - first < SAME_SIGNAL_MS))
        return;
    crew_server_stop(server);
}

static void handle_signals(void)
{
    struct sigaction stop = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };
    (void)sigaction(SIGTERM, &stop, NULL);
    (void)sigaction(SIGINT, &stop, NULL);
    struct sigaction hangup;
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* else it is nohup's */
        (void)sigaction(SIGHUP, &stop, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

/* Each connection wants descriptors, and a soft limit of 1,024 is for programs that use select(). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        crew_log(CREW_LOG_DEBUG, "the limit of descriptors cannot be raised", NULL);
}

/* Large pieces go back to the system when they are freed, also those that libraries have: glibc learns from
 * them to keep the next ones, and never gives back the end of a thread's heap, which malloc_trim passes over.
 */
static void give_memory_back(void)
{
    const char *tunables = getenv("GLIBC_TUNABLES");
    if (getenv("MALLOC_MMAP_THRESHOLD_") || getenv("MALLOC_TRIM_THRESHOLD_") ||
        (tunables && strstr(tunables, "malloc")))
        return; /* somebody knows better */
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 4 * LARGE_BYTES);
}

static crew_status start(const struct settings *s, crew_server *server, const crew_service *service,
                         crew_error *why)
{
    atomic_store(&stoppable, server);
    handle_signals();
    crew_status status = CREW_OK;
    for (size_t i = 0; i < s->listen_count && status == CREW_OK; i++)
        status = crew_server_listen(server, s->listen[i], why);
    if (status == CREW_OK)
        status = crew_server_start(server, why);
    if (status == CREW_OK)
        crew_log(CREW_LOG_INFO, "serving", "{s:s,s:s?,s:i}", "service", service->name, "version",
                 service->version, "pid", (int)getpid());
    return status;
}

static int serve(const struct settings *s, const crew_service *service, const char *program)
{
    crew_dispatcher *dispatcher = NULL;
    crew_server *server = NULL;
    crew_error why = { .message = "no memory" };
    crew_status status = crew_dispatcher_new(&dispatcher);
    if (status == CREW_OK)
        status = crew_dispatcher_add(dispatcher, "", service, NULL, &why);
    if (status == CREW_OK)
        status = crew_server_new(&server, dispatcher, &s->server, &why);
    if (status == CREW_OK)
        status = start(s, server, service, &why);
    int code = status == CREW_OK ? CREW_EXIT_OK : CREW_EXIT_FAILED;
    if (status == CREW_CLOSED)
        code = CREW_EXIT_OK; /* stopped before it served, and so without anything in flight */
    else if (status != CREW_OK)
        fprintf(stderr, "%s: %s\n", program, why.message);
    else if (crew_server_wait(server) != CREW_OK)
        _exit(CREW_EXIT_UNDRAINED); /* handlers may still run, and must not see what they use freed */
    atomic_store(&stoppable, NULL);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    return code;
}

int crew_worker_main(int argc, char **argv, const crew_service *service)
{
    struct settings settings = { 0 };
    int code = CREW_EXIT_OK;
    enum outcome outcome = read_settings(&settings, argc, argv, service);
    if (outcome == WRONG)
        code = CREW_EXIT_USAGE;
    if (outcome == SERVE) {
        crew_log_open(&settings.log);
        raise_descriptor_limit();
        give_memory_back();
        code = serve(&settings, service, argv[0]);
    }
    free(settings.listen_text);
    return code;
}
