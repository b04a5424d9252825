import NetBack
import NetFront
import TestSupport
import Testing

/// NetBack's control ring, under a frontend that asks for what it likes.
struct NetControlBackTests {
  private let frontend = RawControlFrontend()

  private func pair(
    seed: Seed = 1, features: NetFeatures = NetFeatures(), _ end: any NetworkEnd = EchoEnd()
  ) throws -> NetPair {
    let pair = try NetPair(seed: seed, backend: NetBackDriver(features: features) { _ in end }, frontend: frontend)
    let connected = pair.scheduler.run { frontend.isConnected && pair.backBus.isConnected }
    try #require(connected, "\(pair.frontBus.report + pair.backBus.report)")
    return pair
  }

  /// Asks, and waits for as many answers.
  private func ask(_ pair: NetPair, _ requests: [NetIfControlRequest]) throws -> [NetIfControlResponse] {
    for request in requests { frontend.put(request) }
    frontend.pushControl()
    var responses: [NetIfControlResponse] = []
    let answered = try pair.scheduler.run(turns: 2000) {
      responses += try frontend.controlResponses()
      return responses.count >= requests.count
    }
    #expect(answered && responses.count == requests.count)
    return responses
  }

  private func ask(
    _ pair: NetPair, _ type: UInt16, _ data: (UInt32, UInt32, UInt32) = (0, 0, 0)
  ) throws -> [UInt32] {
    let responses = try ask(pair, [NetIfControlRequest(id: 0xABCD, type: type, data: data)])
    let response = try #require(responses.first)
    #expect(response.id == 0xABCD && response.type == type)
    return [response.status, response.data]
  }

  @Test func everyOperationIsAnswered() throws {
    let pair = try pair()
    let page = frontend.references[0].rawValue
    frontend.page(0).zero()
    #expect(try ask(pair, 1) == [1, 0], "no algorithm, and so no flags")
    #expect(try ask(pair, 2, (15, 0, 0)) == [2, 0])
    #expect(try ask(pair, 7, (1, 0, 0)) == [0, 0])
    #expect(try ask(pair, 1) == [0, 15])
    #expect(try ask(pair, 2, (15, 0, 0)) == [0, 0])
    #expect(try ask(pair, 3, (page, 40, 0)) == [0, 0])
    #expect(try ask(pair, 3, (page, 41, 0)) == [3, 0])
    #expect(try ask(pair, 4) == [0, 128])
    #expect(try ask(pair, 6, (page, 1, 0)) == [2, 0], "there is no table yet")
    #expect(try ask(pair, 5, (128, 0, 0)) == [0, 0])
    #expect(try ask(pair, 6, (page, 128, 0)) == [0, 0])
    #expect(try ask(pair, 6, (page, 1, 128)) == [3, 0])
    let second: [UInt8] = [1]
    frontend.page(0).copy(from: second.span)
    #expect(try ask(pair, 6, (page, 1, 0)) == [2, 0], "there is but one queue")
    #expect(try ask(pair, 7, (2, 0, 0)) == [2, 0])
    #expect(try ask(pair, 7, (0, 0, 0)) == [0, 0])
    #expect(try ask(pair, 0) == [1, 0])
    #expect(try ask(pair, 11) == [1, 0])
    #expect(try ask(pair, 0xFFFF) == [1, 0])
    #expect(pair.backBus.isConnected)
  }

  /// A page that was never granted is the request's fault alone.
  @Test func aPageThatCannotBeReadIsRefused() throws {
    let pair = try pair()
    #expect(try ask(pair, 3, (4242, 40, 0)) == [2, 0])
    #expect(try ask(pair, 3, (0xFFFF_FFFF, 1, 0)) == [2, 0])
    #expect(try ask(pair, 3, (4242, 0, 0)) == [0, 0], "a key of no bytes is in no page")
    #expect(pair.backBus.isConnected)
  }

  @Test func aRingThatWasNotOfferedIsNotServed() throws {
    var features = NetFeatures()
    features.controlRing = false
    let pair = try pair(features: features)
    frontend.put(NetIfControlRequest(id: 1, type: 1, data: (0, 0, 0)))
    frontend.pushControl()
    _ = pair.scheduler.run(turns: 200) { false }
    #expect(try frontend.controlResponses().isEmpty && pair.backBus.isConnected)
  }

  @Test func aRingWithoutItsEventChannelIsAnError() throws {
    frontend.withheldKeys = ["event-channel-ctrl"]
    let pair = try NetPair(backend: NetBackDriver { _ in EchoEnd() }, frontend: frontend)
    let failed = try pair.scheduler.run { try pair.backendError != nil }
    #expect(failed)
    #expect(try pair.backendError?.contains("event-channel-ctrl") == true)
  }

  /// A full ring, again and again: each is answered, at most so many in a millisecond.
  @Test func aFloodCostsABoundedAmount() throws {
    let pair = try pair()
    let start = pair.scheduler.now
    var (putCount, answeredCount) = (0, 0)
    while putCount < 1000 {
      while frontend.freeControlCount > 0 {
        frontend.put(NetIfControlRequest(id: UInt16(putCount), type: 4, data: (0, 0, 0)))
        putCount += 1
      }
      frontend.pushControl()
      pair.scheduler.round()
      answeredCount += try frontend.controlResponses().count
      let milliseconds = (pair.scheduler.now.nanoseconds - start.nanoseconds) / 1_000_000
      #expect(answeredCount <= 16 * (Int(milliseconds) + 2))
    }
    let answered = try pair.scheduler.run {
      answeredCount += try frontend.controlResponses().count
      return answeredCount == putCount
    }
    #expect(answered && pair.backBus.isConnected)
  }

  /// A small number, any number, or the page that there is.
  private func word(_ random: inout SeededGenerator) -> UInt32 {
    switch UInt8.random(in: 0...2, using: &random) {
    case 0: UInt32.random(in: 0...4, using: &random)
    case 1: UInt32.random(in: 0...UInt32.max, using: &random)
    default: frontend.references[0].rawValue
    }
  }

  /// Every field random, and packets meanwhile: each request is answered for itself, and the packets come back.
  @Test(arguments: seeds(1...20, of: NetControlBackTests.self))
  func randomRequestsAreAnsweredAndPacketsGoOn(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let pair = try pair(seed: seed)
    let packet = frame(7)
    frontend.page(1).copy(from: packet.span)
    var asked: [UInt16: UInt16] = [:]
    var (packetCount, echoCount, answeredCount) = (0, 0, 0)
    for number in 0..<16 as Range<UInt16> {
      frontend.put(NetIfRxRequest(id: number, gref: frontend.references[2]))
    }
    for round in 0..<60 as Range<UInt16> {
      let count = UInt16.random(in: 0...8, using: &random)
      for index in 0..<count {
        if frontend.freeControlCount == 0 { break }
        let type = UInt16.random(in: 0...12, using: &random)
        let data = (word(&random), word(&random), word(&random))
        asked[round << 8 | index] = type
        frontend.put(NetIfControlRequest(id: round << 8 | index, type: type, data: data))
      }
      let input = (0..<64).map { _ in UInt8.random(in: 0...2, using: &random) }
      frontend.page(0).copy(from: input.span)
      frontend.pushControl()
      if round % 4 == 0 {
        frontend.put(NetIfTxRequest(gref: frontend.references[1], id: round, size: 64))
        packetCount += 1
        frontend.push()
      }
      pair.scheduler.round()
      for response in try frontend.controlResponses() {
        #expect(asked.removeValue(forKey: response.id) == response.type && response.status <= 3)
        answeredCount += 1
      }
      _ = try frontend.txResponses()
      // A hash comes in a slot of its own: what begins a frame has a length.
      echoCount += try frontend.rxResponses().filter { $0.status == 64 }.count
    }
    let done = try pair.scheduler.run(turns: 3000) {
      for response in try frontend.controlResponses() { asked[response.id] = nil }
      echoCount += try frontend.rxResponses().filter { $0.status == 64 }.count
      return asked.isEmpty && echoCount >= packetCount
    }
    #expect(done && answeredCount > 0, "\(asked.count) unanswered, \(echoCount) of \(packetCount) packets")
    #expect(pair.backBus.isConnected)
  }

  /// A producer that lies ends the device, with the reason; whatever its data rings were doing.
  @Test(arguments: [129, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func aBrokenControlRingStopsTheDeviceWithTheReason(producer: UInt32) throws {
    let pair = try pair()
    frontend.put(NetIfTxRequest(gref: frontend.references[1], id: 1, size: 64))
    frontend.push()
    frontend.scribbleControlProducer(producer)
    let stopped = try pair.scheduler.run { try pair.backendError != nil }
    #expect(stopped)
    let error = try #require(try pair.backendError)
    #expect(error.contains("control ring"))
  }
}
