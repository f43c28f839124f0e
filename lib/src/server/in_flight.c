/* A list is enough: there are no more than may be in flight, and it is walked for what is rare. */
#include "server/in_flight.h"

enum { LOOK_MOST = 1000 };

void crew_in_flight_init(struct crew_in_flight *all)
{
    *all = (struct crew_in_flight){ .first = NULL };
    (void)pthread_mutex_init(&all->mutex, NULL);
}

void crew_in_flight_fini(struct crew_in_flight *all)
{
    (void)pthread_mutex_destroy(&all->mutex);
}

void crew_in_flight_add(struct crew_in_flight *all, const crew_list *messages)
{
    pthread_mutex_lock(&all->mutex);
    for (crew_message *m = messages->head; m; m = m->next) {
        m->next_taken = all->first;
        m->at_taken = &all->first;
        if (m->next_taken)
            m->next_taken->at_taken = &m->next_taken;
        all->first = m;
    }
    pthread_mutex_unlock(&all->mutex);
}

crew_message *crew_in_flight_remove(struct crew_in_flight *all, crew_message *message)
{
    pthread_mutex_lock(&all->mutex);
    crew_message *heir = message->heir;
    if (message->at_taken) { /* an heir is not among them */
        *message->at_taken = message->next_taken;
        if (message->next_taken)
            message->next_taken->at_taken = message->at_taken;
    }
    message->next_taken = NULL;
    message->at_taken = NULL;
    message->job = NULL;
    message->heir = NULL;
    message->cancelled = false;
    pthread_mutex_unlock(&all->mutex);
    return heir;
}

void crew_in_flight_begin(struct crew_in_flight *all, crew_message *message, struct crew_job *job)
{
    pthread_mutex_lock(&all->mutex);
    message->job = job;
    atomic_store(&job->group.adopted, message->heir != NULL);
    if (message->cancelled)
        (void)crew_job_cancel(job, NULL);
    pthread_mutex_unlock(&all->mutex);
}

size_t crew_in_flight_cancel(struct crew_in_flight *all, const void *endpoint, crew_string origin,
                             const crew_string *id)
{
    size_t found = 0;
    pthread_mutex_lock(&all->mutex);
    for (crew_message *m = all->first; m; m = m->next_taken) {
        if (m->endpoint != endpoint || !crew_string_equal(m->origin, origin))
            continue;
        m->cancelled = m->cancelled || !id;
        found += m->job ? crew_job_cancel(m->job, id) : !id;
    }
    pthread_mutex_unlock(&all->mutex);
    return found;
}

/* Whether it can have another one as its heir: of a later opening than its own, and than an heir's before. */
static bool can_be_inherited(const crew_message *m, const crew_message *heir)
{
    return m->endpoint == heir->endpoint && m->epoch != heir->epoch &&
           (!m->heir || m->heir->epoch != heir->epoch) && crew_message_is_copy(m, heir);
}

bool crew_in_flight_inherit(struct crew_in_flight *all, crew_message *heir, crew_message **before)
{
    int left = LOOK_MOST;
    pthread_mutex_lock(&all->mutex);
    crew_message *m = all->first;
    while (m && left-- && !can_be_inherited(m, heir))
        m = m->next_taken;
    bool found = m && left >= 0;
    *before = found ? m->heir : NULL;
    if (found)
        m->heir = heir;
    if (found && m->job)
        atomic_store(&m->job->group.adopted, true);
    pthread_mutex_unlock(&all->mutex);
    return found;
}

void crew_in_flight_disinherit(struct crew_in_flight *all, const void *endpoint)
{
    pthread_mutex_lock(&all->mutex);
    for (crew_message *m = all->first; m; m = m->next_taken)
        if (m->endpoint == endpoint && m->heir && m->job)
            atomic_store(&m->job->group.adopted, false);
    pthread_mutex_unlock(&all->mutex);
}
