#include "transport/child.h"

#include <rpcrew/impl/message.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TICK_MS = 10, GRACE_MS = 100 };

bool child_ends_within(struct child *child, unsigned ms, int *how)
{
    int64_t until_ms = crew_now_ms() + ms;
    while (child->pid) {
        pid_t ended = waitpid(child->pid, how, WNOHANG);
        if (ended == child->pid || (ended < 0 && errno == ECHILD)) {
            child->pid = 0;
            return true;
        }
        if (crew_now_ms() >= until_ms)
            return false;
        (void)poll(NULL, 0, TICK_MS);
    }
    return true;
}

void child_end(struct child *child, unsigned linger_ms)
{
    int how;
    if (child_ends_within(child, linger_ms > GRACE_MS ? linger_ms : GRACE_MS, &how))
        return;
    (void)kill(child->pid, SIGTERM);
    if (child_ends_within(child, GRACE_MS, &how))
        return;
    (void)kill(child->pid, SIGKILL); /* whoever runs it may be gone in a moment */
    while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    child->pid = 0;
}

/* Both ends of both. */
struct pipes {
    int to[2], from[2];
};

static bool make_pipes(struct pipes *pipes)
{
    *pipes = (struct pipes){ { -1, -1 }, { -1, -1 } };
    return pipe2(pipes->to, O_CLOEXEC) == 0 && pipe2(pipes->from, O_CLOEXEC) == 0 &&
           fcntl(pipes->to[1], F_SETFL, O_NONBLOCK) == 0 && fcntl(pipes->from[0], F_SETFL, O_NONBLOCK) == 0;
}

static void close_both(const int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

/* 0, or errno. Signals are as a program expects them, whatever thread this is. */
static int spawn(const char *program, char *const *arguments, const struct pipes *pipes, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        (void)posix_spawnattr_setsigdefault(&attributes, &all);
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        error = posix_spawn_file_actions_adddup2(&actions, pipes->to[0], STDIN_FILENO);
        if (!error)
            error = posix_spawn_file_actions_adddup2(&actions, pipes->from[1], STDOUT_FILENO);
        if (!error)
            error = posix_spawnp(pid, program, &actions, &attributes, arguments, environ);
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* With the program's name in front, as copies that may be written to; 0, or errno. */
static int spawn_with(const char *program, const char *const *arguments, const struct pipes *pipes,
                      pid_t *pid)
{
    size_t count = 0;
    while (arguments[count])
        count++;
    char **copies = calloc(count + 2, sizeof *copies);
    bool good = copies && (copies[0] = strdup(program));
    for (size_t i = 0; good && i < count; i++)
        good = (copies[i + 1] = strdup(arguments[i])) != NULL;
    int error = good ? spawn(program, copies, pipes, pid) : ENOMEM;
    for (size_t i = 0; copies && i < count + 1; i++)
        free(copies[i]);
    free(copies);
    return error;
}

int child_start(struct child *child, const char *program, const char *const *arguments)
{
    struct pipes pipes;
    pid_t pid = 0;
    int error = make_pipes(&pipes) ? spawn_with(program, arguments, &pipes, &pid) : errno;
    if (error) {
        close_both(pipes.to);
        close_both(pipes.from);
        return error;
    }
    close(pipes.to[0]);
    close(pipes.from[1]);
    *child = (struct child){ .pid = pid, .to = pipes.to[1], .from = pipes.from[0] };
    return 0;
}
