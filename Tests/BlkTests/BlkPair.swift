import BlkBack
import BlkFront
import Logging
import TestSupport
import Testing

/// A disk, number 51712, with both its ends.
final class BlkPair: DriverPair {
  /// What the backend said of each disk that it was disconnected from.
  let closed: Closed

  final class Closed { var list: [BlkBackStatistics] = [] }

  convenience init(
    seed: Seed = 1, isReadOnly: Bool = false, frontend: any FrontendDriver, store: any BlockStore
  ) throws {
    let closed = Closed()
    try self.init(
      seed: seed, isReadOnly: isReadOnly, frontend: frontend,
      backend: BlkBackDriver(whenClosed: { closed.list.append($1) }) { _ in store }, closed: closed)
  }

  /// - Parameter store: told the device that it is made for.
  convenience init(
    seed: Seed = 1, isReadOnly: Bool = false, options: BlkBackOptions, frontend: any FrontendDriver,
    store: @escaping (XenbusDevice) -> any BlockStore
  ) throws {
    let closed = Closed()
    try self.init(
      seed: seed, isReadOnly: isReadOnly, frontend: frontend,
      backend: BlkBackDriver(options: options, whenClosed: { closed.list.append($1) }, store: store), closed: closed)
  }

  init(
    seed: Seed = 1, isReadOnly: Bool = false, frontend: any FrontendDriver, backend: any BackendDriver,
    closed: Closed = Closed(), log: Logger = .silent
  ) throws {
    self.closed = closed
    try super.init(seed: seed, frontend: frontend, backend: backend, log: log) {
      try $0.toolstack.addVbd(
        to: $0.guest.domain, servedBy: $0.driverDomain.domain, params: "test", isReadOnly: isReadOnly)
    }
  }

  /// What the backend's end reports of the device.
  var backNegotiation: Negotiation { backBus.negotiations[device.backendPath] ?? Negotiation() }

  /// Runs until everything that `disk` has put is completed; the results by tag, with what reads brought.
  func complete(_ disk: BlkFrontDevice) -> [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] {
    var results: [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] = [:]
    let count = disk.inFlightCount
    disk.push()
    let isDone = scheduler.run {
      disk.poll {
        let former = results.updateValue(($0.result, $0.copied()), forKey: $0.tag)
        #expect(former == nil, "request \($0.tag) has completed twice")
      }
      return disk.inFlightCount == 0
    }
    #expect(isDone, "\(disk.inFlightCount) requests are never answered")
    #expect(results.count == count, "\(results.count) of \(count) requests have completed")
    return results
  }

  /// Runs until `count` responses have come for a raw frontend; their statuses by id.
  func statuses(_ frontend: RawBlkFrontend, _ count: Int) throws -> [UInt64: Int16] {
    try answers(frontend, count).mapValues(\.status)
  }

  /// The same, whole.
  func answers(_ frontend: RawBlkFrontend, _ count: Int) throws -> [UInt64: BlkIfResponse] {
    var answers: [UInt64: BlkIfResponse] = [:]
    frontend.push()
    let isWhole = try scheduler.run(turns: 500) {
      for response in try frontend.responses() {
        let former = answers.updateValue(response, forKey: response.id)
        #expect(former == nil, "request \(response.id) is answered twice")
      }
      return answers.count == count
    }
    #expect(isWhole, "\(answers.count) answers, and not \(count)")
    return answers
  }
}
