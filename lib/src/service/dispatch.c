/* The way of a call: its method is found, its params are bound, its handler runs. */
#include "service/dispatch.h"

#include "service/ending.h"

#include <rpcrew/impl/message.h>

static void refuse_unknown(crew_call *call)
{
    const crew_value *data = NULL;
    if (crew_pack(&call->arena, &data, "{s:S}", "method", call->wire->method) != CREW_OK)
        data = NULL;
    (void)crew_call_refuse(call, CREW_ENDED_UNKNOWN_METHOD, CREW_CODE_METHOD_NOT_FOUND, data);
}

/* A map that is the only param stands for named params, unless the method takes a map there. */
static const crew_value *params_of(const crew_call *call)
{
    const crew_value *params = call->wire->params, *only = crew_value_at(params, 0);
    const struct crew_signature *signature = &call->entry->signature;
    bool named = call->wire->named_in_array && crew_value_type(params) == CREW_TYPE_ARRAY &&
                 crew_value_count(params) == 1 && crew_value_type(only) == CREW_TYPE_OBJECT &&
                 signature->count && signature->params[0].declared.type != CREW_PARAM_OBJECT &&
                 signature->params[0].declared.type != CREW_PARAM_ANY;
    return named ? only : params;
}

static crew_status bind(crew_call *call)
{
    const crew_value *data = NULL;
    crew_error why;
    crew_status status =
        crew_signature_bind(&call->entry->signature, params_of(call), call->group->protocol->base64_bytes,
                            &call->arena, &call->arguments, &data, &why);
    if (status != CREW_MISMATCH)
        return status;
    crew_buffer message = { 0 };
    crew_buffer_printf(&message, "%s: %s", crew_code_text(CREW_CODE_INVALID_PARAMS), why.message);
    crew_call_misfit(call, crew_buffer_string(&message), data);
    crew_buffer_fini(&message);
    return status;
}

/* Takes a place among the method's running calls; crew_call's end gives it back. */
static bool admit(crew_call *call)
{
    unsigned most = call->entry->method->max_concurrency;
    unsigned running = atomic_fetch_add(&call->entry->running, 1);
    if (!most || running < most)
        return true;
    atomic_fetch_sub(&call->entry->running, 1);
    call->entry = NULL;
    return false;
}

crew_status crew_call_proceed(crew_call *call)
{
    return call->entry->method->handler(call);
}

/* Also while the worker stops that is answered. */
static bool asks_how_it_is(const crew_wire_call *wire)
{
    return crew_string_equal(wire->method, crew_str("rpc.health")) ||
           crew_string_equal(wire->method, crew_str("rpc.ping"));
}

void crew_dispatch(const crew_dispatcher *dispatcher, crew_call *call)
{
    const crew_wire_call *wire = call->wire;
    if (call->group->timed)
        call->started_ns = crew_now_ns();
    if (wire->code) {
        (void)crew_call_refuse(call, CREW_ENDED_UNDECODABLE, wire->code, wire->data);
        return;
    }
    struct crew_call_group *group = call->group;
    const char *shed = group->shed;
    if (!shed && group->stopping && atomic_load(group->stopping))
        shed = CREW_REASON_STOPPING;
    if (shed && !(strcmp(shed, CREW_REASON_STOPPING) == 0 && asks_how_it_is(wire))) {
        (void)crew_call_shed(call, shed);
        return;
    }
    /* Whoever sends a notification may go at once. */
    if ((!wire->one_way && crew_call_group_is_left(group)) || atomic_load(&call->token.raised)) {
        (void)crew_call_shed(call, CREW_REASON_CANCELLED);
        return;
    }
    if (group->deadline_ms && group->deadline_ms <= crew_now_ms()) {
        (void)crew_call_shed(call, "deadline"); /* what was before it took too long */
        return;
    }
    struct crew_entry *entry = crew_methods_find(dispatcher, wire->method);
    if (!entry) {
        refuse_unknown(call);
        return;
    }
    call->entry = entry;
    if (!admit(call)) {
        (void)crew_call_shed(call, "concurrency");
        return;
    }
    crew_status status = bind(call);
    if (status == CREW_OK)
        status = dispatcher->wrapper ? dispatcher->wrapper(call, dispatcher->wrapper_context)
                                     : crew_call_proceed(call);
    crew_call_settle(call, status);
}
