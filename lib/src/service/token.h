/* What running calls are told before they end: that nobody waits any more, or that the worker stops. */
#ifndef SERVICE_TOKEN_H
#define SERVICE_TOKEN_H

#include <rpcrew/impl/peer.h>
#include <rpcrew/service.h>

#include <pthread.h>

/* The calls of a server, or of whoever runs some, that wait to be told by a descriptor. */
struct crew_tokens {
    atomic_bool draining; /* no new calls are taken */
    atomic_bool pressing; /* and those that run are to end */
    pthread_mutex_t mutex;
    struct crew_token *watched;
};

/* Of one call. All zero: neither raised nor watched. */
struct crew_token {
    atomic_bool raised;            /* its caller takes it back */
    struct crew_token *next, **at; /* in the list */
    const crew_peer *peer;         /* whose going it is told of; NULL: nobody's */
    const atomic_bool *adopted;    /* while this is true that one's going does not matter */
    atomic_bool *told;             /* set then */
    bool watched;                  /* it has been put there */
    int fd;
};

void crew_tokens_init(struct crew_tokens *tokens);
void crew_tokens_fini(struct crew_tokens *tokens);

/* Makes the token's descriptor, once: a timer that ends at deadline_ms (0: never), or is raised before. It is
 * -1 where none can be had. Any thread; peer, adopted and told are borrowed until crew_token_fini. */
int crew_token_watch(struct crew_tokens *tokens, struct crew_token *token, const crew_peer *peer,
                     const atomic_bool *adopted, atomic_bool *told, int64_t deadline_ms);
void crew_token_fini(struct crew_tokens *tokens, struct crew_token *token);

/* Raises one. Any thread, before crew_token_fini. */
void crew_token_raise(struct crew_tokens *tokens, struct crew_token *token);

/* Raises the tokens of peers that have gone, or all. Any thread. */
void crew_tokens_raise(struct crew_tokens *tokens, bool all);

#endif
