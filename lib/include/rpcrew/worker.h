/* A whole worker program in one call. */
#ifndef RPCREW_WORKER_H
#define RPCREW_WORKER_H

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

/* Serves the service until SIGTERM or SIGINT, then drains; a second signal ends it at once. Takes flags from
 * the command line and from the environment (--threads is RPCREW_THREADS, and so on; the command line wins):
 *
 *   --listen URL        an endpoint to serve, can be repeated (RPCREW_LISTEN: several, separated by spaces)
 *   --threads N         of the pool; 2 x cores, at least 4
 *   --in-flight N       requests taken and not yet answered, per endpoint; 64
 *   --drain-ms N        how long stopping may take; 10000
 *   --log-level LEVEL   off, error, warn, info (the default), debug
 *   --log-format FORMAT text (the default), logfmt, json
 *   --wait              an endpoint that is not there yet is tried again instead of ending the worker
 *   --help, --version
 *
 * Logs go to standard error. Returns what main should. Handles SIGTERM and SIGINT and ignores SIGPIPE from
 * then on; on CREW_EXIT_UNDRAINED it ends the process itself, since handlers may still run. Once a process.
 */
CREW_API int crew_worker_main(int argc, char **argv, const crew_service *service);

#ifdef __cplusplus
}
#endif
#endif
