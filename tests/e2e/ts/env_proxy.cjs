// Makes Node's fetch go by HTTP_PROXY, as NODE_USE_ENV_PROXY=1 does from Node.js 22.21 on: through a tunnel.
"use strict";

const { EnvHttpProxyAgent, setGlobalDispatcher } = require("undici");

setGlobalDispatcher(new EnvHttpProxyAgent());
