/* One exchange of the phase decides who ends what a task has made: its thread, or who left it. */
#include "core/task.h"

#include "core/thread.h"

enum { IDLE, RUNNING, THROUGH, LEFT };

static void *run(void *argument)
{
    struct crew_task *task = argument;
    task->run(task->context);
    if (atomic_exchange(&task->phase, THROUGH) == LEFT)
        task->abandon(task->context);
    else
        crew_queue_wake(task->queue); /* whoever frees the queue joins this thread first */
    return NULL;
}

crew_status crew_task_start(struct crew_task *task, const char *name, crew_error *why)
{
    atomic_store(&task->phase, RUNNING);
    crew_status status = crew_thread_start(&task->thread, name, run, task, why);
    task->started = status == CREW_OK;
    if (!task->started)
        atomic_store(&task->phase, IDLE);
    return status;
}

bool crew_task_is_through(struct crew_task *task)
{
    if (!task->started || atomic_load(&task->phase) != THROUGH)
        return false;
    (void)pthread_join(task->thread, NULL);
    atomic_store(&task->phase, IDLE);
    task->started = false;
    return true;
}

bool crew_task_leave(struct crew_task *task)
{
    pthread_t thread = task->thread; /* the task may be gone once it is left */
    if (task->started && task->opening)
        crew_opening_end(task->opening);
    switch (task->started ? atomic_exchange(&task->phase, LEFT) : IDLE) {
    case RUNNING: (void)pthread_detach(thread); return true;
    case THROUGH:
        (void)pthread_join(thread, NULL);
        task->abandon(task->context);
        return true;
    default: return false;
    }
}
