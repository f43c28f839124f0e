/* A gate that handlers stand at: the test sees how many have come, and lets them through. */
#ifndef SUPPORT_GATE_H
#define SUPPORT_GATE_H

#include <pthread.h>
#include <stdbool.h>

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned entered; /* how many have come, ever */
    unsigned allowed; /* how many may have left, ever */
};

#define GATE_INITIALIZER { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0 }

/* For handlers: comes to the gate, returns when let through. */
void gate_pass(struct gate *gate);

/* Waits until that many have come; false after ten seconds. */
bool gate_await(struct gate *gate, unsigned entered);
unsigned gate_entered(struct gate *gate);
/* Lets that many more through. */
void gate_let(struct gate *gate, unsigned more);
/* Everybody, from now on. */
void gate_open(struct gate *gate);
void gate_reset(struct gate *gate);

#endif
