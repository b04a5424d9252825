import NetBack
import TestSupport
import Testing

/// N19: how much a guest may send, by the key `rate`.
struct NetRateTests {
  private let frontend = RawNetFrontend()
  private let end = NotingEnd()

  private func pair(_ rate: String) throws -> HandPolledPair {
    try HandPolledPair(
      frontend: frontend, backend: NetBackDriver { [end] _ in end }, backendKeys: [StoreEntry("rate", rate)])
  }

  /// Puts so many packets, as far as the ring has room, and gives how many are taken at this instant.
  private func send(_ count: Int, _ byteCount: UInt16, at seconds: Double, _ pair: HandPolledPair) throws -> Int {
    for _ in 0..<count { frontend.put(NetIfTxRequest(gref: frontend.references[0], id: 1, size: byteCount)) }
    frontend.push()
    _ = pair.pollUntilIdle(at: seconds)
    return try frontend.txResponses().count
  }

  private func instant(_ seconds: Double) -> PollOutcome { .idleUntil(Uptime(nanoseconds: UInt64(seconds * 1e9))) }

  /// Debts are paid off first, so that over time no more passes than may.
  @Test func noMorePassesThanMay() throws {
    let pair = try pair("1000,1000000")
    #expect(try send(100, 300, at: 0, pair) == 4)
    #expect(pair.poll(at: 0) == instant(1))
    // Events are no reason.
    #expect(try send(1, 300, at: 0.5, pair) == 0)
    var taken = 4
    for second in 1...9 {
      taken += try send(0, 0, at: Double(second), pair)
      #expect(taken * 300 > 1000 * (second + 1) - 300 && taken * 300 < 1000 * (second + 1) + 300)
    }
    #expect(end.taken.count == taken)
  }

  @Test func aPacketLongerThanAnIntervalPassesAndIsPaidOff() throws {
    let pair = try pair("100,100000")
    #expect(try send(2, 4096, at: 0, pair) == 1)
    // 3996 bytes of debt, of which the 40th interval leaves nothing.
    #expect(pair.poll(at: 0) == instant(4))
    #expect(try send(0, 0, at: 3.99, pair) == 0)
    #expect(try send(0, 0, at: 4, pair) == 1)
  }

  @Test func whatIsNotUsedDoesNotAddUp() throws {
    let pair = try pair("1000,1000000")
    #expect(try send(1, 100, at: 0, pair) == 1)
    #expect(pair.poll(at: 3600) == .idle)
    #expect(try send(100, 100, at: 3600, pair) == 10)
  }

  /// The other way is not held back: the rate is that of what the guest sends.
  @Test func whatTheGuestReceivesIsNotHeldBack() throws {
    let pair = try pair("100,1000000")
    #expect(try send(2, 200, at: 0, pair) == 1)
    end.toGive = (0..<10).map { .init(frame($0, byteCount: 1000)) }
    for id in 0..<10 as Range<UInt16> { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.push()
    _ = pair.pollUntilIdle(at: 0)
    #expect(try frontend.rxResponses().count == 10)
  }

  @Test func withoutALimitEverythingPasses() throws {
    let pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { [end] _ in end })
    #expect(try send(200, 4096, at: 0, pair) == 200)
  }

  @Test(arguments: ["18446744073709551615,4294967295", "18446744073709551615,1", "1,4294967295", "1,1"])
  func theLargestAndTheSmallestNumbersAreNumbers(rate: String) throws {
    let pair = try pair(rate)
    #expect(try send(1, 4096, at: 0, pair) == 1)
    _ = pair.pollUntilIdle(at: 1e9)
    #expect(try send(1, 4096, at: 1e9, pair) == 1)
  }

  @Test(arguments: [
    "", "1000", "1000,", ",1000", "0,1000", "1000,0", "-1,5", "a,b", "1,2,3", "1 000,5", "1000,4294967296",
  ])
  func aRateThatIsNoneClosesTheDevice(rate: String) throws {
    let pair = try HandPolledPair(
      frontend: frontend, backend: NetBackDriver { [end] _ in end }, backendKeys: [StoreEntry("rate", rate)],
      connects: false)
    let error = try pair.rig.error(of: pair.rig.driverDomain, "/local/domain/2/backend/vif/1/0")
    #expect(error?.contains("/rate") == true && error?.contains("bytes and microseconds") == true, "\(error ?? "")")
  }
}
