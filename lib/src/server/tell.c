#include "server/tell.h"

#include "core/metrics.h"
#include "service/job.h"
#include "service/table.h"

#include <rpcrew/impl/message.h>

const char *crew_change_name(crew_change change)
{
    static const char *const names[] = {
        [CREW_ENDPOINT_OPENED] = "opened", [CREW_ENDPOINT_FAILED] = "failed", [CREW_ENDPOINT_LOST] = "lost",
        [CREW_ENDPOINT_CLOSED] = "closed", [CREW_PEER_CAME] = "peer_came",    [CREW_PEER_GONE] = "peer_gone",
        [CREW_SERVER_DRAINS] = "drains",   [CREW_SERVER_DRAINED] = "drained"
    };
    return (size_t)change < sizeof names / sizeof *names ? names[change] : "unknown";
}

crew_status crew_server_observe(crew_server *server, const crew_server_hooks *hooks, crew_error *why)
{
    if (server->endpoint_count)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "crew_server_observe comes before crew_server_listen");
    if (server->observer_count == CREW_OBSERVERS_MAX)
        return crew_error_set(why, CREW_LIMIT, "more than %d observers", CREW_OBSERVERS_MAX);
    server->observers[server->observer_count++] = *hooks;
    server->observes_calls = server->observes_calls || hooks->call;
    server->observes_answers = server->observes_answers || hooks->answer;
    return CREW_OK;
}

static void tell(const crew_server *server, crew_call_end *end)
{
    bool not_looked_up = !end->known && end->ending >= CREW_ENDED_SHED;
    if (not_looked_up && end->method.size)
        end->known = crew_methods_find(server->dispatcher, end->method) != NULL;
    end->ended_ns = crew_now_ns();
    crew_ending_log(end);
    if (server->metrics)
        crew_tell_metrics(server->metrics, end);
    for (size_t i = 0; server->observes_calls && i < server->observer_count; i++)
        if (server->observers[i].call)
            server->observers[i].call(server->observers[i].context, end);
}

/* Whether nobody would hear of it. */
static bool is_quiet(const crew_server *server, crew_ending ending)
{
    return !server->observes_calls && ending == CREW_ENDED_RESULT && !crew_log_enabled(CREW_LOG_DEBUG);
}

void crew_tell_call(const crew_call *call, const crew_message *message)
{
    const struct crew_endpoint *endpoint = message->endpoint;
    const crew_server *server = crew_server_of(endpoint);
    crew_call_end end;
    char id[CREW_ID_TEXT];
    if (is_quiet(server, call->ending))
        return;
    crew_ending_of(call, &end, id);
    end.endpoint = crew_label_of(endpoint);
    end.bytes_in = message->body.size;
    end.received_ns = message->received_ns;
    tell(server, &end);
}

void crew_tell_message(const crew_message *message, const crew_protocol *protocol, crew_ending ending,
                       const char *reason)
{
    const struct crew_endpoint *endpoint = message->endpoint;
    const struct crew_job *job = message->job;
    char id[CREW_ID_TEXT];
    crew_call_end end = { .ending = ending,
                          .code = ending == CREW_ENDED_FAILED ? CREW_CODE_INTERNAL_ERROR : 0,
                          .reason = reason,
                          .peer = message->peer && message->peer->name ? message->peer->name : "",
                          .address = message->peer && message->peer->address ? message->peer->address : "",
                          .endpoint = crew_label_of(endpoint),
                          .protocol = protocol ? protocol->name : "",
                          .one_way = message->one_way,
                          .bytes_in = message->body.size,
                          .bytes_out = message->reply.size,
                          .received_ns = message->received_ns };
    if (job && job->wire.count == 1) /* it has been read, and waited too long */
        crew_ending_of_wire(job->group.protocol, &job->wire.items[0], &end, id);
    tell(crew_server_of(endpoint), &end);
}

void crew_tell_metrics(crew_metrics *metrics, const crew_call_end *end)
{
    bool is_shed = end->ending == CREW_ENDED_SHED, is_good = end->ending == CREW_ENDED_RESULT;
    int64_t turn_ns = end->started_ns ? end->started_ns : end->ended_ns;
    crew_metrics_count(
        metrics, CREW_SIDE_SERVER,
        &(struct crew_metrics_end){ .method = end->known ? end->method : crew_str("_OTHER"),
                                    .endpoint = end->endpoint,
                                    .protocol = end->protocol,
                                    .error = is_good                  ? NULL
                                             : is_shed && end->reason ? end->reason
                                                                      : crew_ending_name(end->ending),
                                    .code = end->code,
                                    .free_code = end->ending == CREW_ENDED_ERROR,
                                    .total_ns = end->ended_ns - end->received_ns,
                                    .wait_ns = turn_ns - end->received_ns,
                                    .run_ns = end->started_ns ? end->ended_ns - end->started_ns : -1,
                                    .request_bytes = end->bytes_in,
                                    .response_bytes = end->bytes_out });
}

crew_metrics *crew_server_metrics(crew_server *server)
{
    return server->metrics;
}

void crew_tell_answer(const struct crew_endpoint *endpoint, const crew_message *message, crew_status status)
{
    const crew_server *server = crew_server_of(endpoint);
    if (!server->observes_answers)
        return;
    const crew_answer_end end = { .endpoint = crew_label_of(endpoint),
                                  .status = status,
                                  .bytes = message->charged,
                                  .received_ns = message->received_ns,
                                  .written_ns = crew_now_ns() };
    for (size_t i = 0; i < server->observer_count; i++)
        if (server->observers[i].answer)
            server->observers[i].answer(server->observers[i].context, &end);
}

void crew_tell_change(const crew_server *server, crew_change change, const struct crew_endpoint *endpoint,
                      const char *peer, const char *why)
{
    for (size_t i = 0; i < server->observer_count; i++)
        if (server->observers[i].change)
            server->observers[i].change(server->observers[i].context, change,
                                        endpoint ? crew_label_of(endpoint) : NULL, peer ? peer : "", why);
}

void crew_tell_peer(const struct crew_endpoint *endpoint, crew_peer *peer)
{
    const crew_server *server = crew_server_of(endpoint);
    if (!server->observer_count || !peer || peer->shared || peer->told)
        return;
    peer->told = true;
    crew_tell_change(server, CREW_PEER_CAME, endpoint, peer->name, NULL);
}
