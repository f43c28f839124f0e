/* A program that is run: its standard input and output are pipes of ours. */
#ifndef TRANSPORT_CHILD_H
#define TRANSPORT_CHILD_H

#include <rpcrew/status.h>

#include <sys/types.h>

struct child {
    pid_t pid;    /* 0: none, or nobody has to wait for it any more */
    int to, from; /* what we write to and read from, which do not block */
};

/* Runs a program (a path, or a name that is looked for in PATH), with arguments from the first after its name
 * on, NULL at their end. 0, or errno; then nothing is open. */
int child_start(struct child *child, const char *program, const char *const *arguments);

/* Waits until it has ended, for so long at most; then *how is what waitpid(2) says. */
bool child_ends_within(struct child *child, unsigned ms, int *how);

/* Its input has ended. If that does not end it within its time, and it does not when it is told to, it is
 * killed. */
void child_end(struct child *child, unsigned linger_ms);

#endif
