#include "client/tell.h"

#include <ctype.h>
#include <string.h>

crew_status crew_client_observe(crew_client *client, const crew_client_hooks *hooks, crew_error *why)
{
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
    bool is_good = outcome->status == CREW_OK, is_remote = outcome->status == CREW_REMOTE_ERROR;
    crew_metrics_count(
        metrics, CREW_SIDE_CLIENT,
        &(struct crew_metrics_end){ .method = crew_str(outcome->method),
                                    .endpoint = outcome->endpoint,
                                    .protocol = outcome->protocol,
                                    .error = is_good ? NULL : error_type(outcome->status, room, sizeof room),
                                    .code = outcome->code,
                                    .free_code = is_remote,
                                    .total_ns = outcome->ended_ns - outcome->started_ns,
                                    .request_bytes = outcome->bytes_out,
                                    .response_bytes = outcome->bytes_in });
}

void crew_client_tell_call(const crew_client *client, const struct crew_pending *call, const crew_error *why,
                           size_t bytes)
{
    size_t count = atomic_load(&client->observer_count);
    if (!client->counts && !count)
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
    for (size_t i = 0; i < count; i++)
        if (client->observers[i].call)
            client->observers[i].call(client->observers[i].context, &outcome);
}

void crew_client_tell_change(const crew_client *client, crew_change change,
                             const struct crew_endpoint *endpoint, const char *why)
{
    size_t count = atomic_load(&client->observer_count);
    for (size_t i = 0; i < count; i++)
        if (client->observers[i].change)
            client->observers[i].change(client->observers[i].context, change, crew_url_text(endpoint->url),
                                        why);
}
