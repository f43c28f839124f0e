#include "client/tell.h"

#include <ctype.h>
#include <string.h>

crew_status crew_client_observe(crew_client *client, const crew_client_hooks *hooks, crew_error *why)
{
    if (client->back) /* others have it as well, and it may outlive what these hooks want */
        return crew_error_set(why, CREW_UNSUPPORTED, "a client of crew_call_client is not observed");
    pthread_mutex_lock(
        &client->mutex); /* of others who add one; who reads them needs no more than the count */
    size_t count = atomic_load(&client->observer_count);
    if (count < CREW_CLIENT_OBSERVERS_MAX) {
        client->observers[count] = *hooks;
        atomic_store(&client->observer_count, count + 1);
    }
    pthread_mutex_unlock(&client->mutex);
    if (count == CREW_CLIENT_OBSERVERS_MAX)
        return crew_error_set(why, CREW_LIMIT, "more than %d observers", CREW_CLIENT_OBSERVERS_MAX);
    for (size_t i = 0; i < client->link_count; i++) /* which tell it that they are open, if they are */
        crew_queue_wake(&client->links[i].endpoint.queue);
    return CREW_OK;
}

/* "timeout" of CREW_TIMEOUT. */
static const char *error_type(crew_status status, char *room, size_t size)
{
    const char *name = crew_status_name(status) + strlen("CREW_");
    size_t at = 0;
    for (; name[at] && at + 1 < size; at++)
        room[at] = (char)tolower((unsigned char)name[at]);
    room[at] = '\0';
    return room;
}

static void count_call(crew_metrics *metrics, const crew_outcome *outcome)
{
    char room[40];
    bool is_good = outcome->status == CREW_OK;
    crew_metrics_count(
        metrics, CREW_SIDE_CLIENT,
        &(struct crew_metrics_end){ .method = crew_str(outcome->method),
                                    .endpoint = outcome->endpoint,
                                    .protocol = outcome->protocol,
                                    .error = is_good ? NULL : error_type(outcome->status, room, sizeof room),
                                    .code = outcome->code,
                                    .free_code = outcome->status == CREW_REMOTE_ERROR &&
                                                 !crew_code_text(outcome->code),
                                    .free_method = true,
                                    .total_ns = outcome->ended_ns - outcome->started_ns,
                                    .request_bytes = outcome->bytes_out,
                                    .response_bytes = outcome->bytes_in });
}

void crew_client_tell_call(const crew_client *client, const struct crew_pending *call, const crew_error *why,
                           size_t bytes)
{
    if (!client->counts && !call->observers)
        return;
    const crew_outcome outcome = { .method = call->method,
                                   .endpoint = crew_client_url(client),
                                   .protocol = client->protocol->name,
                                   .status = why->status,
                                   .code = why->code,
                                   .executed = why->executed,
                                   .message = why->message,
                                   .one_way = call->options.one_way,
                                   .again = call->again,
                                   .bytes_out = call->bytes,
                                   .bytes_in = bytes,
                                   .started_ns = call->started_ns,
                                   .ended_ns = crew_now_ns() };
    if (client->counts)
        count_call(client->options.metrics, &outcome);
    for (size_t i = 0; i < call->observers; i++)
        if (client->observers[i].call)
            client->observers[i].call(client->observers[i].context, &outcome);
}

static void tell_change(const crew_client *client, size_t from, size_t to, crew_change change,
                        const struct crew_endpoint *endpoint, const char *why)
{
    for (size_t i = from; i < to; i++)
        if (client->observers[i].change)
            client->observers[i].change(client->observers[i].context, change, crew_url_text(endpoint->url),
                                        why);
}

void crew_client_tell_newcomers(struct crew_link *link)
{
    const crew_client *client = link->endpoint.options.context;
    size_t count = atomic_load(&client->observer_count), told = link->observers_told;
    link->observers_told = count;
    if (link->up)
        tell_change(client, told, count, CREW_ENDPOINT_OPENED, &link->endpoint, NULL);
}

void crew_client_tell_change(struct crew_link *link, crew_change change, const char *why)
{
    crew_client_tell_newcomers(link);
    tell_change(link->endpoint.options.context, 0, link->observers_told, change, &link->endpoint, why);
}
