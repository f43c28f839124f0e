/* The README's worker, complete. */
#include <rpcrew.h>

static crew_status subtract(crew_call *call)
{
    return crew_reply_double(call, crew_arg_double(call, 0) - crew_arg_double(call, 1));
}

static const crew_method methods[] = {
    { .name = "subtract",
      .handler = subtract,
      .params = "minuend:number subtrahend:number",
      .result = "number",
      .doc = "Returns minuend - subtrahend." },
    { 0 },
};

int main(int argc, char **argv)
{
    return crew_worker_main(argc, argv,
                            &(crew_service){ .name = "calc", .version = "1.0.0", .methods = methods });
}
