#include "core/back.h"

#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct crew_back *backs;
static unsigned last_number;

void crew_backs_lock(void)
{
    pthread_mutex_lock(&mutex);
}

void crew_backs_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

struct crew_back *crew_back_of(const crew_peer *peer)
{
    struct crew_back *back = backs;
    while (back && back->peer != peer)
        back = back->next;
    return back;
}

void crew_back_add(struct crew_back *back)
{
    back->number = ++last_number;
    back->next = backs;
    backs = back;
    atomic_store(&back->peer->called, true);
}

void crew_back_remove(struct crew_back *back)
{
    struct crew_back **at = &backs;
    while (*at != back)
        at = &(*at)->next;
    *at = back->next;
}

void crew_back_release(struct crew_back *back)
{
    crew_backs_lock();
    bool last = --back->uses == 0;
    crew_backs_unlock();
    if (!last)
        return;
    crew_list_free(&back->inbox);
    back->home->release(back->endpoint);
    crew_peer_release(back->peer);
    free(back);
}

bool crew_back_is_over(const struct crew_back *back)
{
    return atomic_load(&back->peer->gone) || atomic_load(&back->peer->mute);
}

void crew_back_url(const struct crew_back *back, char url[CREW_BACK_URL])
{
    (void)snprintf(url, CREW_BACK_URL, "back://%u", back->number);
}

struct crew_back *crew_back_named(const char *name)
{
    char url[CREW_BACK_URL];
    for (struct crew_back *back = backs; back; back = back->next) {
        crew_back_url(back, url);
        if (strcmp(url + strlen("back://"), name) == 0) {
            back->uses++;
            return back;
        }
    }
    return NULL;
}

bool crew_back_deliver(crew_message *m)
{
    crew_backs_lock();
    struct crew_back *back = crew_back_of(m->peer);
    bool wanted = back && back->wake;
    if (wanted) {
        crew_list_append(&back->inbox, m);
        crew_queue_wake(back->wake);
    }
    crew_backs_unlock();
    return wanted;
}

void crew_backs_wake(void)
{
    crew_backs_lock();
    for (const struct crew_back *back = backs; back; back = back->next)
        if (back->wake && crew_back_is_over(back))
            crew_queue_wake(back->wake);
    crew_backs_unlock();
}
