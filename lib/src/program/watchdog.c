#include "program/watchdog.h"

#include "core/thread.h"
#include "program/notify.h"
#include "server/report.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void *watch(void *argument)
{
    const struct watchdog *w = argument;
    struct pollfd stop = { .fd = w->stop_fd, .events = POLLIN };
    while (poll(&stop, 1, w->every_ms) == 0) /* signals are for other threads */
        if (crew_report_alive(w->server) && atomic_load(w->serves))
            (void)program_notify("WATCHDOG=1"); /* else the next one does */
    return NULL;
}

/* The number in the variable; 0: it is not set. */
static crew_status read_number(const char *name, unsigned long long *number, crew_error *why)
{
    const char *text = getenv(name);
    char *end;
    *number = 0;
    if (!text)
        return CREW_OK;
    errno = 0;
    *number = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || !*number)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "%s='%s': it wants a number above 0", name, text);
    return CREW_OK;
}

crew_status watchdog_start(struct watchdog *watchdog, crew_server *server, const atomic_bool *serves,
                           crew_error *why)
{
    unsigned long long us, pid;
    *watchdog = (struct watchdog){ .server = server, .serves = serves, .stop_fd = -1 };
    crew_status status = read_number("WATCHDOG_USEC", &us, why);
    if (status == CREW_OK)
        status = read_number("WATCHDOG_PID", &pid, why);
    if (status != CREW_OK || !us || (pid && pid != (unsigned long long)getpid()))
        return status;
    unsigned long long quarter_ms = us / 4000; /* so that one that comes late does no harm */
    watchdog->every_ms = quarter_ms > INT_MAX ? INT_MAX : quarter_ms ? (int)quarter_ms : 1;
    watchdog->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (watchdog->stop_fd < 0)
        return crew_error_set(why, CREW_SYSTEM, "eventfd: %s", strerror(errno));
    status = crew_thread_start(&watchdog->thread, "rpcrew-watchdog", watch, watchdog, why);
    if (status != CREW_OK) {
        close(watchdog->stop_fd);
        watchdog->stop_fd = -1;
    }
    return status;
}

void watchdog_stop(struct watchdog *watchdog)
{
    uint64_t one = 1;
    if (watchdog->stop_fd < 0)
        return;
    (void)!write(watchdog->stop_fd, &one, sizeof one);
    (void)pthread_join(watchdog->thread, NULL);
    close(watchdog->stop_fd);
    watchdog->stop_fd = -1;
}
