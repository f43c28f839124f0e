#include "support/gate.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

void gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    unsigned place = ++gate->entered;
    pthread_cond_broadcast(&gate->changed);
    while (place > gate->allowed)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

bool gate_await(struct gate *gate, unsigned entered)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&gate->mutex);
    int error = 0;
    while (gate->entered < entered && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&gate->changed, &gate->mutex, &until);
    bool there = gate->entered >= entered;
    pthread_mutex_unlock(&gate->mutex);
    return there;
}

unsigned gate_entered(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    unsigned entered = gate->entered;
    pthread_mutex_unlock(&gate->mutex);
    return entered;
}

static void set(struct gate *gate, unsigned allowed)
{
    gate->allowed = allowed;
    pthread_cond_broadcast(&gate->changed);
}

void gate_let(struct gate *gate, unsigned more)
{
    pthread_mutex_lock(&gate->mutex);
    set(gate, gate->allowed + more);
    pthread_mutex_unlock(&gate->mutex);
}

void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    set(gate, UINT_MAX);
    pthread_mutex_unlock(&gate->mutex);
}

void gate_reset(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->entered = 0;
    gate->allowed = 0;
    pthread_mutex_unlock(&gate->mutex);
}
