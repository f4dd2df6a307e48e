use std::future::Future;
use std::marker::PhantomData;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipring_core::{BoxFuture, BoxStream, Effect, Error, Result};

use super::{Context, Fault};
use crate::codec::Codec;

/// A handler without its types: bytes in, bytes out.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, codec: Codec, request: Bytes, context: Context) -> BoxFuture<'static, Result<Output>>;
}

/// What a handler answers with.
pub(crate) enum Output {
    One(Bytes),
    Many(BoxStream<'static, Result<Bytes>>),
}

/// A function from a request to one response.
pub(crate) struct Unary<F, Req> {
    function: F,
    request: PhantomData<fn(Req)>,
}

impl<F, Req> Unary<F, Req> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, request: PhantomData }
    }
}

impl<F, Fut, Req, Resp> Handler for Unary<F, Req>
where
    F: Fn(Req, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Resp, Fault>> + Send + 'static,
    Req: DeserializeOwned + 'static,
    Resp: Serialize,
{
    fn handle(&self, codec: Codec, request: Bytes, context: Context) -> BoxFuture<'static, Result<Output>> {
        let response = match codec.decode(&request) {
            Ok(request) => (self.function)(request, context),
            Err(error) => return Box::pin(async move { Err(error) }),
        };
        Box::pin(async move {
            let response = response.await.map_err(Fault::into_error)?;
            // It ran: that its answer cannot be written changes nothing about that.
            let bytes = codec.encode(&response).map_err(|error| error.raise(Effect::Applied))?;
            Ok(Output::One(bytes))
        })
    }
}

/// A function from a request to a stream of items.
pub(crate) struct Streaming<F, Req> {
    function: F,
    request: PhantomData<fn(Req)>,
}

impl<F, Req> Streaming<F, Req> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, request: PhantomData }
    }
}

impl<F, Fut, Req, Items, Item> Handler for Streaming<F, Req>
where
    F: Fn(Req, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Items, Fault>> + Send + 'static,
    Items: Stream<Item = Result<Item, Fault>> + Send + 'static,
    Req: DeserializeOwned + 'static,
    Item: Serialize,
{
    fn handle(&self, codec: Codec, request: Bytes, context: Context) -> BoxFuture<'static, Result<Output>> {
        let items = match codec.decode(&request) {
            Ok(request) => (self.function)(request, context),
            Err(error) => return Box::pin(async move { Err(error) }),
        };
        Box::pin(async move {
            let items = items.await.map_err(Fault::into_error)?;
            let encoded = items.map(move |item| {
                let item = item.map_err(Fault::into_error)?;
                codec.encode(&item).map_err(|error| error.raise(Effect::Applied))
            });
            Ok(Output::Many(encoded.boxed()))
        })
    }
}

/// A function from bytes to a stream of bytes, whatever the codec.
pub(crate) struct Raw<F>(pub(crate) F);

impl<F, Fut, Items> Handler for Raw<F>
where
    F: Fn(Bytes, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Items, Fault>> + Send + 'static,
    Items: Stream<Item = Result<Bytes, Fault>> + Send + 'static,
{
    fn handle(&self, _codec: Codec, request: Bytes, context: Context) -> BoxFuture<'static, Result<Output>> {
        let items = (self.0)(request, context);
        Box::pin(async move {
            let items = items.await.map_err(Fault::into_error)?;
            Ok(Output::Many(items.map(|item| item.map_err(Fault::into_error)).boxed()))
        })
    }
}

/// A panic in a handler, as the caller sees it.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let message = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::fault("panic", format!("the handler panicked: {message}"))
}
