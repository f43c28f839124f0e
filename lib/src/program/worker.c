/* crew_worker_main: flags, environment, signals and logs around a server. */
#include "program/access_log.h"
#include "program/notify.h"
#include "program/watchdog.h"
#include "server/server.h"
#include "service/table.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/log.h>
#include <rpcrew/observe.h>
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
#include <time.h>
#include <unistd.h>

enum { LISTEN_MOST = 64, OWN_FLAGS_MOST = 64, LARGE_BYTES = 256 << 10 };

struct settings {
    const char *listen[LISTEN_MOST];
    size_t listen_count;
    char *listen_text;      /* the environment's, cut up */
    char *admin;            /* its URL, with what makes it one */
    const char *access_log; /* the file; "-": standard error; NULL: none */
    crew_server_options server;
    crew_log_options log;
    const crew_worker_options *own;
    bool sets_own; /* the program's own flags are read, not only looked at */
};

/* ---- settings ---- */

/* Every flag that has a value, once: name, what --help says of it, how it is read. */
static crew_status set_listen(struct settings *s, const char *value, crew_error *why);
static crew_status set_admin(struct settings *s, const char *value, crew_error *why);
static crew_status set_threads(struct settings *s, const char *value, crew_error *why);
static crew_status set_call_timeout(struct settings *s, const char *value, crew_error *why);
static crew_status set_unready(struct settings *s, const char *value, crew_error *why);
static crew_status set_access_log(struct settings *s, const char *value, crew_error *why);
static crew_status set_in_flight(struct settings *s, const char *value, crew_error *why);
static crew_status set_drain(struct settings *s, const char *value, crew_error *why);
static crew_status set_level(struct settings *s, const char *value, crew_error *why);
static crew_status set_format(struct settings *s, const char *value, crew_error *why);

static const struct flag {
    const char *name, *value, *help;
    crew_status (*set)(struct settings *s, const char *value, crew_error *why);
    bool may_lack; /* its value */
} flags[] = {
    { "listen", "URL", "an endpoint to serve; can be repeated", set_listen },
    { "admin", "URL", "http:// for /metrics, /healthz and /readyz alone", set_admin },
    { "threads", "N", "threads of the pool; 2 x cores, at least 4", set_threads },
    { "in-flight", "N",
      "requests taken and not yet answered, per endpoint; 64, or 2 x threads of work for the CPU",
      set_in_flight },
    { "call-timeout-ms", "N", "deadline of requests that bring none; 30000", set_call_timeout },
    { "drain-ms", "N", "how long stopping may take; 10000", set_drain },
    { "unready-ms", "N", "how long an endpoint may be away and /readyz good; 10000", set_unready },
    { "log-level", "LEVEL", "off, error, warn, info (the default), debug", set_level },
    { "log-format", "FORMAT", "text (the default), logfmt, json", set_format },
    { "access-log", "[=FILE]", "a line for each call; to standard error", set_access_log, true },
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

/* The URL with the option that makes it one for reports alone. */
static crew_status set_admin(struct settings *s, const char *value, crew_error *why)
{
    if (strncmp(value, "http://", 7) != 0 && strncmp(value, "https://", 8) != 0) {
        char shown[200];
        return crew_error_set(why, CREW_BAD_ARGUMENT, "'%s' is no http:// or https:// URL",
                              crew_redact(value, shown, sizeof shown));
    }
    free(s->admin);
    if (asprintf(&s->admin, "%s%creports=only", value, strchr(value, '?') ? '&' : '?') < 0) {
        s->admin = NULL;
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    }
    return CREW_OK;
}

static crew_status set_call_timeout(struct settings *s, const char *value, crew_error *why)
{
    return read_number(value, 24 * 3600 * 1000, &s->server.call_timeout_ms, why);
}

static crew_status set_unready(struct settings *s, const char *value, crew_error *why)
{
    return read_number(value, 24 * 3600 * 1000, &s->server.unready_ms, why);
}

static crew_status set_access_log(struct settings *s, const char *value, crew_error *why)
{
    (void)why;
    s->access_log = value ? value : "-";
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
    s->server.wait = s->server.wait || (wait && *wait == '1');
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

static void print_flag(const char *name, const char *between, const char *value, const char *help)
{
    char shown[100];
    (void)snprintf(shown, sizeof shown, "%s%s%s", name, between, value);
    printf("  --%-21s %s\n", shown, help);
}

static void print_help(const char *program, const crew_service *service, const crew_worker_options *own)
{
    printf("usage: %s --listen URL [--listen URL...] [options]\n", program);
    if (service->doc)
        printf("\n%s\n", service->doc);
    printf("\noptions (and environment variables):\n");
    for (int i = 0; i < FLAGS; i++)
        print_flag(flags[i].name, flags[i].may_lack ? "" : " ", flags[i].value, flags[i].help);
    print_flag("wait", "", "", "an endpoint that is not there yet is tried again");
    print_flag("help", "", "", "shows this");
    print_flag("version", "", "", "shows the service's version");
    printf("Each is also an environment variable, such as RPCREW_IN_FLIGHT, or RPCREW_WAIT=1; the command "
           "line wins.\n");
    if (own->flags)
        printf("\nof this program:\n");
    for (const crew_worker_flag *f = own->flags; f && f->name; f++)
        print_flag(f->name, " ", f->value ? f->value : "", f->help ? f->help : "");
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

enum { OWN = 256 + FLAGS };

static size_t own_flag_count(const crew_worker_options *own)
{
    size_t count = 0;
    while (own->flags && own->flags[count].name && count < OWN_FLAGS_MOST)
        count++;
    return count;
}

static crew_status set_flag(struct settings *s, int chosen, const char *value, const char **name,
                            crew_error *why)
{
    if (chosen < OWN) {
        *name = flags[chosen - 256].name;
        return flags[chosen - 256].set(s, value, why);
    }
    const crew_worker_flag *own = &s->own->flags[chosen - OWN];
    *name = own->name;
    return s->sets_own && own->set ? own->set(s->own->context, value, why) : CREW_OK;
}

static enum outcome read_flags(struct settings *s, int argc, char **argv, const crew_service *service)
{
    struct option options[FLAGS + OWN_FLAGS_MOST + 4] = { { 0 } };
    size_t own_count = own_flag_count(s->own);
    for (int i = 0; i < FLAGS; i++)
        options[i] = (struct option){ .name = flags[i].name,
                                      .has_arg = flags[i].may_lack ? optional_argument : required_argument,
                                      .val = 256 + i };
    options[FLAGS] = (struct option){ .name = "wait", .val = 'w' };
    options[FLAGS + 1] = (struct option){ .name = "help", .val = 'h' };
    options[FLAGS + 2] = (struct option){ .name = "version", .val = 'v' };
    for (size_t i = 0; i < own_count; i++)
        options[FLAGS + 3 + i] =
            (struct option){ .name = s->own->flags[i].name,
                             .has_arg = s->own->flags[i].value ? required_argument : no_argument,
                             .val = OWN + (int)i };

    crew_error why;
    char shown[200];
    const char *name;
    optind = 0; /* from the start, also the second time */
    opterr = 0; /* it would show what should not be seen */
    for (int chosen; (chosen = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        if (chosen == 'w') {
            s->server.wait = true;
        } else if (chosen == 'h') {
            print_help(argv[0], service, s->own);
            return FINISHED;
        } else if (chosen == 'v') {
            printf("%s %s\n", service->name, service->version ? service->version : "0");
            return FINISHED;
        } else if (chosen < 256) {
            fprintf(stderr, "%s: '%s' %s\n", argv[0], wrong_option(argv[optind - 1], shown, sizeof shown),
                    chosen == ':' ? "requires an argument" : "is not an option");
            return WRONG;
        } else if (set_flag(s, chosen, optarg, &name, &why) != CREW_OK) {
            fprintf(stderr, "%s: --%s: %s\n", argv[0], name, why.message);
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
    struct settings unused = { .own = s->own };
    enum outcome outcome = read_flags(&unused, argc, argv, service);
    free(unused.admin);
    if (outcome == FINISHED)
        return outcome;
    crew_status status = CREW_OK;
    s->log.level = CREW_LOG_INFO;
    if (outcome == SERVE)
        status = read_environment(s, &why);
    s->sets_own = true;
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

/* The log's level and the one that was asked for: turned to debug and back. */
static crew_log_options log_options;
static volatile sig_atomic_t shows_all;

static void on_user_signal(int number)
{
    (void)number;
    shows_all = !shows_all;
    crew_log_options options = log_options;
    if (shows_all)
        options.level = CREW_LOG_DEBUG;
    crew_log_open(&options); /* three atomic stores */
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

/* The running program; once a process. */
static struct running {
    const struct settings *settings;
    const crew_service *service;
    crew_server *server;
    atomic_bool started, said, told; /* systemd as well */
} running;

/* READY=1 must not be lost: tried for a while. */
static void say_ready(void)
{
    enum { TRIES = 100 };
    const struct timespec pause = { .tv_nsec = 10000000 };
    bool sent = false;
    for (int i = 0; i < TRIES && !(sent = program_notify("READY=1")) && errno == EAGAIN; i++)
        (void)nanosleep(&pause, NULL);
    if (!sent)
        crew_log(CREW_LOG_WARN, "systemd could not be told that it serves", NULL);
    atomic_store(&running.told, sent);
}

/* Once: when it runs, and something of it listens. */
static void say_serving(void)
{
    const crew_worker_options *own = running.settings->own;
    if (!atomic_load(&running.started) || atomic_exchange(&running.said, true))
        return;
    const crew_service *service = running.service;
    if (service->version)
        crew_log(CREW_LOG_INFO, "serving", "{s:s,s:s,s:i}", "service", service->name, "version",
                 service->version, "pid", (int)getpid());
    else
        crew_log(CREW_LOG_INFO, "serving", "{s:s,s:i}", "service", service->name, "pid", (int)getpid());
    say_ready();
    if (own->serving)
        own->serving(own->context, running.server);
}

static void on_change(void *context, crew_change change, const char *endpoint, const char *peer,
                      const char *why)
{
    const struct settings *s = context;
    (void)endpoint;
    (void)peer;
    (void)why;
    if (change == CREW_ENDPOINT_OPENED && endpoint)
        say_serving();
    if (change == CREW_SERVER_DRAINS) {
        unsigned drain_ms = s->server.drain_ms ? s->server.drain_ms : 10000;
        (void)program_notify("STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu", (drain_ms + 5000) * 1000ULL);
        if (s->own->draining)
            s->own->draining(s->own->context);
    }
}

static crew_status listen_at(crew_server *server, const char *flag, const char *url, crew_error *why)
{
    crew_error reason;
    crew_status status = crew_server_listen(server, url, &reason);
    if (status == CREW_OK || status == CREW_CLOSED)
        return status;
    return crew_error_set(why, status, "%s: %s", flag, reason.message);
}

static crew_status start(const struct settings *s, crew_server *server, crew_error *why)
{
    atomic_store(&stoppable, server);
    handle_signals();
    crew_status status = CREW_OK;
    if (s->admin)
        status = listen_at(server, "--admin", s->admin, why);
    for (size_t i = 0; i < s->listen_count && status == CREW_OK; i++)
        status = listen_at(server, "--listen", s->listen[i], why);
    if (status == CREW_OK)
        status = crew_server_start(server, why);
    crew_server_stats stats;
    atomic_store(&running.started, status == CREW_OK); /* first: what opens from here on says so itself */
    crew_server_stats_get(server, &stats);
    if (status == CREW_OK && stats.listening)
        say_serving();
    else if (status == CREW_OK && s->server.wait)
        crew_log(CREW_LOG_INFO, "waiting for an endpoint to open", NULL);
    return status;
}

static crew_status check_url(const char *flag, const char *url, crew_error *why)
{
    crew_error reason;
    crew_status status = crew_server_check_url(url, &reason);
    return status == CREW_OK ? CREW_OK : crew_error_set(why, status, "%s: %s", flag, reason.message);
}

/* Before anything is opened. */
static crew_status check_urls(const struct settings *s, crew_error *why)
{
    crew_status status = s->admin ? check_url("--admin", s->admin, why) : CREW_OK;
    for (size_t i = 0; i < s->listen_count && status == CREW_OK; i++)
        status = check_url("--listen", s->listen[i], why);
    return status;
}

/* Whether somebody can ask for metrics. What is wrong with a URL is said when it is opened. */
static bool wants_metrics(const struct settings *s)
{
    bool wants = s->admin != NULL;
    for (size_t i = 0; i < s->listen_count && !wants; i++) {
        crew_url *url;
        if (crew_url_parse(s->listen[i], &url, NULL) != CREW_OK)
            continue;
        const char *reports = crew_url_option(url, "reports");
        wants = reports && (strcmp(reports, "yes") == 0 || strcmp(reports, "only") == 0);
        crew_url_free(url);
    }
    return wants;
}

static crew_status set_up(struct settings *s, crew_dispatcher *dispatcher, crew_server **server,
                          struct access_log *access_log, crew_error *why)
{
    const crew_worker_options *own = s->own;
    s->server.metrics = s->server.metrics || wants_metrics(s);
    crew_status status = crew_dispatcher_add(dispatcher, "", running.service, own->context, why);
    if (status == CREW_OK)
        status = crew_server_new(server, dispatcher, &s->server, why);
    const crew_server_hooks hooks = { .change = on_change, .context = s };
    running.server = *server;
    if (status == CREW_OK)
        status = crew_server_observe(*server, &hooks, why);
    if (status == CREW_OK && s->access_log)
        status = access_log_open(access_log, s->access_log, *server, why);
    if (status == CREW_OK && own->set_up)
        status = own->set_up(own->context, dispatcher, *server, why);
    return status;
}

static int serve(struct settings *s, const crew_service *service)
{
    const crew_worker_options *own = s->own;
    crew_dispatcher *dispatcher = NULL;
    crew_server *server = NULL;
    struct watchdog watchdog = { .stop_fd = -1 };
    static struct access_log access_log = { .fd = -1 }; /* a deferred call may end after the server has */
    crew_error why = { .status = CREW_OK };
    running.settings = s;
    running.service = service;
    crew_status status = check_urls(s, &why);
    if (status == CREW_OK && own->prepare)
        status = own->prepare(own->context, &why);
    bool prepared = status == CREW_OK;
    if (status == CREW_OK)
        status = crew_dispatcher_new(&dispatcher);
    if (status == CREW_OK)
        status = set_up(s, dispatcher, &server, &access_log, &why);
    if (status == CREW_OK)
        status = watchdog_start(&watchdog, server, &running.told, &why);
    bool begins = status == CREW_OK; /* what is wrong from here on is met outside */
    if (begins)
        status = start(s, server, &why);
    bool is_misuse = !begins && (status == CREW_BAD_ARGUMENT || status == CREW_UNSUPPORTED);
    int code = status == CREW_OK ? CREW_EXIT_OK : is_misuse ? CREW_EXIT_USAGE : CREW_EXIT_FAILED;
    if (begins && status == CREW_CLOSED)
        code = CREW_EXIT_OK; /* stopped before it served, and so without anything in flight */
    else if (status != CREW_OK)
        crew_log(CREW_LOG_ERROR, "cannot start", "{s:s}", "why",
                 *why.message ? why.message : crew_status_text(status));
    else if (crew_server_wait(server) != CREW_OK)
        _exit(CREW_EXIT_UNDRAINED); /* handlers may still run, and must not see what they use freed */
    watchdog_stop(&watchdog);
    atomic_store(&stoppable, NULL);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    access_log_close(&access_log);
    if (prepared && own->ended)
        own->ended(own->context);
    return code;
}

int crew_worker_main_with(int argc, char **argv, const crew_service *service,
                          const crew_worker_options *options)
{
    static const crew_worker_options none;
    struct settings settings = { .own = options ? options : &none };
    settings.server = settings.own->server;
    int code = CREW_EXIT_OK;
    char **words = crew_hide_words(argc, argv);
    enum outcome outcome = read_settings(&settings, argc, words ? words : argv, service);
    if (outcome == WRONG)
        code = CREW_EXIT_USAGE;
    if (outcome == SERVE) {
        struct sigaction show = { .sa_handler = on_user_signal, .sa_flags = SA_RESTART };
        log_options = settings.log;
        (void)sigaction(SIGUSR1, &show, NULL);
        crew_log_open(&settings.log);
        raise_descriptor_limit();
        give_memory_back();
        code = serve(&settings, service);
    }
    free(settings.listen_text);
    free(settings.admin);
    return code;
}

int crew_worker_main(int argc, char **argv, const crew_service *service)
{
    return crew_worker_main_with(argc, argv, service, NULL);
}
