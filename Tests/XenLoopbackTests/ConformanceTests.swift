import PlatformConformance
import Testing
import XenLoopback

/// The same checks run on a real Xen in Tests/Xen: what holds there holds here.
@Test(arguments: PlatformCheck.all) func loopbackDoesWhatXenDoes(_ check: PlatformCheck) throws {
  let loopback = Loopback()
  try check.run(on: loopback.addDomain())
  let counts = loopback.grantCounts
  #expect(counts.sharedPages == 0 && counts.mappedPages == 0, "the check left grants behind")
  #expect(loopback.openPortCount == 0, "the check left event channels behind")
}
