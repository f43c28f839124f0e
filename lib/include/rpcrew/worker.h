/* A whole worker program in one call. */
#ifndef RPCREW_WORKER_H
#define RPCREW_WORKER_H

#include <rpcrew/dispatcher.h>
#include <rpcrew/server.h>
#include <rpcrew/service.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How crew_worker_main ends. */
enum {
    CREW_EXIT_OK = 0,     /* told to stop, and everything in flight was answered */
    CREW_EXIT_FAILED = 1, /* could not start: an endpoint, memory; the log says why */
    CREW_EXIT_USAGE = 2,  /* the command line or environment is wrong */
    CREW_EXIT_UNDRAINED =
        3 /* stopped with calls in flight: the drain time was over, or a second signal came */
};

/* Serves the service until SIGTERM or SIGINT, then drains; a second signal ends it at once. SIGUSR1 turns the
 * log's debug level on, and off again. Takes flags from the command line and from the environment (--threads
 * is RPCREW_THREADS, and so on; the command line wins):
 *
 *   --listen URL        an endpoint to serve, can be repeated (RPCREW_LISTEN: several, separated by spaces)
 *   --admin URL         an http:// endpoint that serves only /metrics, /healthz and /readyz, also while it
 * drains
 *   --threads N         of the pool; 2 x cores, at least 4
 *   --in-flight N       requests taken and not yet answered, per endpoint; 64, or
 *                       2 x threads where the service's work is CREW_WORK_CPU
 *   --call-timeout-ms N deadline of requests that bring none; 30000
 *   --drain-ms N        how long stopping may take; 10000
 *   --unready-ms N      how long an endpoint may be away before /readyz says so; 10000
 *   --log-level LEVEL   off, error, warn, info (the default), debug
 *   --log-format FORMAT text (the default), logfmt, json
 *   --access-log[=FILE] a line for each call, to the file's end, or to standard error
 *   --wait              an endpoint that is not there yet is tried again instead of ending the worker
 *   --help, --version
 *
 * Logs go to standard error. Where systemd started it (NOTIFY_SOCKET), it says when it is ready and when it
 * stops. Passwords in argv's words are overwritten, lest others read them (crew_hide_words). Returns what
 * main should. Handles SIGTERM, SIGINT and SIGUSR1 and ignores SIGPIPE from then on; on CREW_EXIT_UNDRAINED
 * it ends the process itself, since handlers may still run. Once a process. */
CREW_API int crew_worker_main(int argc, char **argv, const crew_service *service);

/* A flag of the program's own: --name, or --name VALUE. */
typedef struct crew_worker_flag {
    const char *name;  /* NULL ends the table */
    const char *value; /* what --help calls it; NULL: a switch */
    const char *help;
    /* Reads it; value, which stays as long as the program: NULL for a switch. On a failure, in words, the
     * program ends with CREW_EXIT_USAGE. */
    crew_status (*set)(void *context, const char *value, crew_error *why);
} crew_worker_flag;

/* A program around the worker. Any may be NULL or zero. All are called on main's thread, but for serving,
 * which may be an endpoint's, in this order. */
typedef struct crew_worker_options {
    void *context; /* of the flags, the hooks and the service's methods (crew_call_context) */
    const crew_worker_flag *flags;
    /* The flags and URLs are good, nothing is open: for a database, a cache, configuration. */
    crew_status (*prepare)(void *context, crew_error *why);
    /* The service is in the dispatcher, and no endpoint is open: for more services, a wrapper, observers. */
    crew_status (*set_up)(void *context, crew_dispatcher *dispatcher, crew_server *server, crew_error *why);
    /* It listens. */
    void (*serving)(void *context, crew_server *server);
    /* It was told to stop: from here on no new calls are taken. On the thread that drains, which waits. */
    void (*draining)(void *context);
    /* The server is gone, with all handlers; not with CREW_EXIT_UNDRAINED. Only after a prepare that went
     * well. */
    void (*ended)(void *context);
    crew_server_options server; /* defaults, which flags override */
} crew_worker_options;

/* The same with a program around it; options: NULL: none. A prepare or set_up that fails with
 * CREW_BAD_ARGUMENT or CREW_UNSUPPORTED is CREW_EXIT_USAGE, else CREW_EXIT_FAILED. */
CREW_API int crew_worker_main_with(int argc, char **argv, const crew_service *service,
                                   const crew_worker_options *options);

#ifdef __cplusplus
}
#endif
#endif
