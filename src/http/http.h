// Umbrella header of http: a server of HTTP, and who its callers are.
#pragma once

#include "http/api_keys.h"
#include "http/caller.h"
#include "http/digest.h"
#include "http/error_body.h"
#include "http/gate.h"
#include "http/message.h"
#include "http/quota.h"
#include "http/server.h"
