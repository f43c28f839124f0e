#include "support/handlers.h"

#include <poll.h>

struct gate gate = GATE_INITIALIZER;
atomic_int was_raised;

crew_status add(crew_call *call)
{
    return crew_reply_int(call, crew_arg_int(call, 0) + crew_arg_int(call, 1));
}

crew_status echo(crew_call *call)
{
    return crew_reply_value(call, crew_arg(call, 0));
}

crew_status pass(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_int(call, 1);
}

crew_status until_cancelled(crew_call *call)
{
    struct pollfd fd = { .fd = crew_call_cancel_fd(call), .events = POLLIN };
    gate_pass(&gate);
    atomic_store(&was_raised, poll(&fd, 1, 20000) == 1 && crew_call_cancelled(call) ? 1 : -1);
    return crew_reply_null(call);
}
