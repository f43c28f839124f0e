/* A handler's client to its caller. All handlers of one peer's calls share it, since the ids of calls over
 * one connection must differ. */
#include "core/back.h"

#include "client/client.h"
#include "service/call.h"

#include <stdlib.h>

/* NULL without memory. */
static struct crew_back *make(crew_peer *peer)
{
    struct crew_back *back = calloc(1, sizeof *back);
    if (!back)
        return NULL;
    *back = (struct crew_back){
        .peer = crew_peer_hold(peer), .home = peer->home, .endpoint = peer->endpoint, .holds = 1, .uses = 1
    };
    back->home->hold(back->endpoint);
    return back;
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
    back = make(peer); /* its client may take a while: meanwhile it is nobody's to use */
    if (back)
        crew_back_add(back);
    crew_backs_unlock();
    if (!back)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    crew_back_url(back, url);
    const struct crew_endpoint *endpoint = back->endpoint;
    const crew_client_options options = { .protocol = call->group->protocol->name,
                                          .limits = endpoint->options.limits };
    crew_client *made = NULL;
    crew_status status = crew_client_new(&made, url, &options, why);
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
        crew_back_release(back);
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
    crew_back_release(back);
}
