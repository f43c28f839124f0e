/* A handler's client to its caller. All handlers of one peer's calls share it, since the ids of calls over
 * one connection must differ. */
#include "core/back.h"

#include "client/client.h"
#include "service/call.h"

#include <stdlib.h>

static void free_back(struct crew_back *back)
{
    back->home->release(back->endpoint);
    crew_peer_release(back->peer);
    free(back);
}

/* Under the lock, but for making the client, which may wait: meanwhile it is nobody's to find. */
static crew_status make(crew_call *call, crew_peer *peer, struct crew_back **out, crew_error *why)
{
    struct crew_back *back = calloc(1, sizeof *back);
    if (!back)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    *back = (struct crew_back){ .peer = crew_peer_hold(peer),
                                .home = peer->home,
                                .endpoint = peer->endpoint,
                                .protocol = call->group->protocol,
                                .holds = 1 };
    back->home->hold(back->endpoint);
    *out = back;
    return CREW_OK;
}

crew_status crew_call_client(crew_call *call, crew_client **client, crew_error *why)
{
    crew_peer *peer = call->group->peer;
    char url[CREW_BACK_URL];
    if (!peer || !peer->takes_calls || !peer->home)
        return crew_error_set(why, CREW_UNSUPPORTED, "this caller cannot be called over its connection");
    crew_backs_lock();
    struct crew_back *back = crew_back_of(peer);
    if (back && back->client) {
        back->holds++;
        *client = back->client;
        crew_backs_unlock();
        return CREW_OK;
    }
    if (back) { /* one is being made, or ended, this very moment */
        crew_backs_unlock();
        return crew_error_set(why, CREW_OVERLOADED, "its client is being made or ended: try again");
    }
    crew_status status = make(call, peer, &back, why);
    if (status == CREW_OK)
        crew_back_add(back);
    crew_backs_unlock();
    if (status != CREW_OK)
        return status;
    crew_back_url(back, url);
    const crew_client_options options = { .protocol = back->protocol->name };
    crew_client *made = NULL;
    status = crew_client_new(&made, url, &options, why);
    crew_backs_lock();
    if (status == CREW_OK) {
        made->back = back;
        made->table.last_id = peer->last_id;
        back->client = made;
        *client = made;
    } else {
        crew_back_remove(back);
    }
    crew_backs_unlock();
    if (status != CREW_OK)
        free_back(back);
    return status;
}

bool crew_client_is_shared(crew_client *client)
{
    if (!client->back)
        return false;
    crew_backs_lock();
    bool shared = --client->back->holds > 0;
    if (!shared)
        client->back->client = NULL;
    crew_backs_unlock();
    return shared;
}

void crew_client_leave_back(crew_client *client)
{
    struct crew_back *back = client->back;
    if (!back)
        return;
    crew_backs_lock();
    back->peer->last_id = client->table.last_id;
    crew_back_remove(back);
    crew_backs_unlock();
    free_back(back);
}
