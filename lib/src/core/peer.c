/* Peers are counted by who holds them; all else about them is their transport's and the pool's. */
#include <rpcrew/impl/message.h>
#include <stdlib.h>

crew_peer *crew_peer_new(void *mine)
{
    crew_peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    atomic_init(&peer->holds, 1);
    peer->mine = mine;
    return peer;
}

crew_peer *crew_peer_hold(crew_peer *peer)
{
    if (peer)
        atomic_fetch_add_explicit(&peer->holds, 1, memory_order_relaxed);
    return peer;
}

void crew_peer_release(crew_peer *peer)
{
    if (!peer || atomic_fetch_sub(&peer->holds, 1) > 1)
        return;
    crew_message_free(peer->with);
    free(peer->name);
    free(peer->address);
    free(peer);
}
