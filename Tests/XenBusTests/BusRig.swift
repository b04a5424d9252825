import TestSupport
import Testing
import XenBus
import XenLoopback
import XenPlatform
import XenstoredSupport

/// A ``Rig`` whose store is the loopback's or, where a test runs a second time, a real xenstored.
struct BusRig {
  let loopback: Loopback
  let control: any Platform
  let guest: any Platform
  let driverDomain: any Platform
  let toolstack: Toolstack
  /// The control domain's connection: it may read and write everything.
  let store: any Xenstore
  private let daemon: Xenstored?

  init() throws {
    let rig = try Rig()
    loopback = rig.loopback
    guard TestedStore.current == .xenstored else {
      daemon = nil
      (control, guest, driverDomain) = (rig.control, rig.guest, rig.driverDomain)
      (toolstack, store) = (rig.toolstack, rig.store)
      return
    }
    let daemon = try Xenstored(domains: [rig.guest.domain, rig.driverDomain.domain])
    self.daemon = daemon
    control = XenstoredPlatform(rig.control, storedBy: daemon)
    guest = XenstoredPlatform(rig.guest, storedBy: daemon)
    driverDomain = XenstoredPlatform(rig.driverDomain, storedBy: daemon)
    toolstack = try Toolstack(on: control)
    store = try control.openXenstore()
  }

  /// One more guest.
  func addDomain() throws -> DomainID {
    let domain = loopback.addDomain().domain
    try daemon?.add(domain)
    return domain
  }

  func directory(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store) }

  func state(_ path: String) throws -> XenbusState { XenbusState(key: try directory(path).optionalString("state")) }

  /// The message that a domain left for the toolstack about the device at `path`; nil when there is none.
  func error(of domain: any Platform, _ path: String) throws -> String? {
    let home = "/local/domain/\(domain.domain.rawValue)/"
    return try directory("\(home)error/\(path.dropFirst(home.count))").optionalString("error")
  }
}

/// Which store a test's rigs have.
enum TestedStore: String, CaseIterable {
  case loopback = "the loopback's store"
  case xenstored = "a real xenstored"

  @TaskLocal static var current = loopback
}

/// Runs each test once on the loopback's store and once, where there is one, on a real xenstored; a failure says which.
struct OnEachStore: SuiteTrait, TestTrait, TestScoping {
  var isRecursive: Bool { true }

  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
  ) async throws {
    // A suite's scope surrounds those of its tests.
    guard testCase != nil else { return try await function() }
    for store in TestedStore.allCases where store == .loopback || Xenstored.absence == nil {
      let naming = IssueHandlingTrait.compactMapIssues { issue in
        var issue = issue
        issue.comments.append("on \(store.rawValue)")
        return issue
      }
      try await TestedStore.$current.withValue(store) {
        try await naming.provideScope(for: test, testCase: testCase, performing: function)
      }
    }
  }
}

/// Of such a suite, a test of what a connection to xenstored's socket does not show: it has the control domain's rights and
/// home, whichever domain a test opens it for.
struct NeedsGuestsRights: TestTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
  ) async throws { if TestedStore.current == .loopback { try await function() } }
}

extension Trait where Self == OnEachStore {
  static var onEachStore: Self { OnEachStore() }
}

extension Trait where Self == NeedsGuestsRights {
  static var needsGuestsRights: Self { NeedsGuestsRights() }
}
