/* A token's descriptor is a timer: its call's deadline needs nobody to look at a clock, and to raise it early
 * is to let it end now. */
#include "service/token.h"

#include <sys/timerfd.h>
#include <unistd.h>

void crew_tokens_init(struct crew_tokens *tokens)
{
    *tokens = (struct crew_tokens){ .watched = NULL };
    (void)pthread_mutex_init(&tokens->mutex, NULL);
}

void crew_tokens_fini(struct crew_tokens *tokens)
{
    (void)pthread_mutex_destroy(&tokens->mutex);
}

/* At a time of CLOCK_MONOTONIC; 1 has passed long since. */
static void set_timer(int fd, int64_t at_ms)
{
    struct itimerspec when = { .it_value = { .tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000 } };
    (void)timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static bool is_left(const struct crew_token *token)
{
    return token->peer && atomic_load(&token->peer->gone) && !atomic_load(token->adopted);
}

int crew_token_watch(struct crew_tokens *tokens, struct crew_token *token, const crew_peer *peer,
                     const atomic_bool *adopted, atomic_bool *told, int64_t deadline_ms)
{
    pthread_mutex_lock(&tokens->mutex);
    if (!token->watched) {
        token->watched = true;
        token->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        token->peer = peer;
        token->adopted = adopted;
        token->told = told;
        token->next = tokens->watched;
        token->at = &tokens->watched;
        if (token->next)
            token->next->at = &token->next;
        tokens->watched = token;
        bool left = is_left(token);
        bool now = left || atomic_load(&token->raised) || atomic_load(&tokens->pressing);
        if (left)
            atomic_store(told, true);
        if (token->fd >= 0 && (now || deadline_ms))
            set_timer(token->fd, now ? 1 : deadline_ms);
    }
    int fd = token->fd;
    pthread_mutex_unlock(&tokens->mutex);
    return fd;
}

void crew_token_fini(struct crew_tokens *tokens, struct crew_token *token)
{
    if (!token->watched) /* only who holds the call asks for a descriptor */
        return;
    pthread_mutex_lock(&tokens->mutex);
    *token->at = token->next;
    if (token->next)
        token->next->at = token->at;
    int fd = token->fd;
    token->at = NULL; /* whoever raises it now finds nothing to do */
    pthread_mutex_unlock(&tokens->mutex);
    if (fd >= 0)
        close(fd);
}

void crew_token_raise(struct crew_tokens *tokens, struct crew_token *token)
{
    pthread_mutex_lock(&tokens->mutex);
    atomic_store(&token->raised, true);
    if (token->at && token->fd >= 0)
        set_timer(token->fd, 1);
    pthread_mutex_unlock(&tokens->mutex);
}

void crew_tokens_raise(struct crew_tokens *tokens, bool all)
{
    pthread_mutex_lock(&tokens->mutex);
    for (const struct crew_token *token = tokens->watched; token; token = token->next) {
        bool left = is_left(token);
        if (token->fd < 0 || !(all || left))
            continue;
        if (left)
            atomic_store(token->told, true);
        set_timer(token->fd, 1);
    }
    pthread_mutex_unlock(&tokens->mutex);
}
