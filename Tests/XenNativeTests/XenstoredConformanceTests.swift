import PlatformConformance
import Testing
import XenLoopback
import XenstoredSupport

/// X14: what the loopback's store does, a real xenstored does through libxenstore.
@Test(.needsXenstored, arguments: PlatformCheck.store) func xenstoredConforms(_ check: PlatformCheck) throws {
  let daemon = try Xenstored(domains: [1, 2, 3].map { .init(rawValue: $0) })
  try check.run(on: XenstoredPlatform(Loopback().addDomain(), storedBy: daemon, catchingUp: false))
}
