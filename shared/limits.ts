// THE table of limits: everything that a peer, a caller, an archive or an origin can send or make grow has a row
// here, with its reason. A refusal because of one carries a code from failure.ts and names the limit.

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

export const limits = {
  // The wire.
  frameBytes: 1 * MiB, // control messages are small; bulk travels over HTTP
  linksBeforeHello: 256, // links that have not proved who they are, at one time; each may send one frame
  frameDepth: 32, // deepest message of the table is 8
  frameFragments: 64, // ws fragments a frame may arrive in (T12)
  frameBufferedChunks: 256, // unread socket chunks ws may hold for one peer (T12)
  helloWithinMs: 5_000, // a connection that says nothing is closed
  linkBufferedBytes: 16 * MiB, // unsent bytes for one peer; above it the peer is too slow and is dropped
  // Requests.
  inlineBytes: 16 * KiB, // inputs and results up to this travel and rest inside their record
  inputBytes: 512 * MiB, // one request body
  resultBytes: 512 * MiB, // one response body of a queued request
  headerBytes: 16 * KiB, // all headers of one message, as fal's gateway has it
  pathBytes: 8 * KiB, // path and query of one request
  directWaiters: 10_000, // direct calls that wait for a runner, per coordinator
  leasesRemembered: 65_536, // used leases an agent knows again, so that none opens a second call
  statusStreams: 10_000, // open status streams, per coordinator
  headersPerMessage: 512, // as many as a message of the wire may carry
  headersWithinMs: 10_000, // a connection that sends its head slower is closed (F44)
  bodyLeastBytesPerSecond: 100, // a body that drips slower is cut off (F44)
  bodyRateWindowMs: 15_000, // over which the rate is measured
  callTries: 4, // runners asked for one direct call, when agents refuse
  uploadsAtOnce: 64, // bodies above inlineBytes being written at one time
  // Apps.
  appFileBytes: 256 * KiB,
  appDirBytes: 100 * MiB, // packed `dir:` of a process app (DESIGN §6)
  appEnvEntries: 512,
  appWeights: 256,
  apps: 10_000,
  // Bytes.
  manifestBytes: 4 * MiB, // what registries accept as a manifest
  manifestDepth: 4, // nested indexes
  imageLayers: 400, // overlayfs mounts at most 500 lower folders
  blobBytes: 2048 * GiB,
  tokenBytes: 64 * KiB, // a registry's token answer
  layerEntries: 5_000_000, // entries of one layer
  layerPathBytes: 4_096, // PATH_MAX
  layerDepth: 1_024, // folders in one path
  layerPaxBytes: 1 * MiB, // one PAX header
  layerRatio: 1_032, // deflate cannot expand more: above it somebody lies about the size
  layerBytes: 512 * GiB, // one layer, unpacked
  redirects: 5,
  originConnectMs: 10_000, // to reach a registry or another origin
  originSilenceMs: 30_000, // no byte from it for so long: it hangs
  originTries: 5, // failures in a row, without a byte between, before a fetch gives up
  retryAfterMs: 60_000, // the longest `Retry-After` that is waited for
  challengeBytes: 16 * KiB, // a WWW-Authenticate header
  layerFetches: 3, // layers of one image fetched at one time
  layerUnpacks: 2, // layers unpacked at one time on a node: each is one busy thread
  weightFetches: 4, // weight files of one app fetched at one time
  weightBytes: 2048 * GiB, // one weight file
  xattrBytes: 64 * KiB, // one extended attribute, as the kernel has it
  diskReserveBytes: 64 * MiB, // free space that no blob and no layer may use
  ignoreRules: 1_000, // lines of .runmeshignore
  pieceBytes: 16 * MiB, // one piece of a blob, the unit that peers exchange
  peerUploads: 4, // pieces that a node gives to peers at one time: few and fast beats many and slow
  // Runners.
  gpusPerRunner: 8,
  runnersPerNode: 512,
  runnerProcesses: 8_192, // processes and threads of one runner: a fork bomb stays inside (F33)
  logBytes: 16 * MiB, // kept output of one runner, oldest first to go
  logReadBytes: 64 * KiB, // one answer to a log read
  // Probes and answers of programs and peers.
  probeOutputBytes: 16 * MiB, // what nvidia-smi may print
  commandOutputBytes: 1 * MiB, // what a host command may print
  probeTimeoutMs: 10_000,
  // Listings.
  pageItems: 1_000,
} as const;
